"""What deploy/kubernetes has is of the API's form, and what its parts name of each other exists: ports, settings,
figures, keys of Secrets and ConfigMaps. It was never run on a cluster.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from settings import Settings
from settings.addresses import DnsName
from settings.version import VERSION
from tests.deploy.manifests import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    FILES,
    FOLDER,
    MANIFESTS,
    container,
    environment,
    kustomizations,
    pod,
)
from tests.deploy.test_compose import known
from tests.test_settings import LEAVES
from tools.harness.server import ROOT

RELEASES = ("1.29", "1.34", "1.37")
"""Of Kubernetes, whose API the manifests are held against: the oldest that the page names, and newer ones."""
EXTENSIONS = {"ScaledObject": "keda.sh/v1alpha1", "Cluster": "postgresql.cnpg.io/v1"}
"""Kinds that operators bring, whose schemas are not Kubernetes' own."""
OF_THE_IMAGE = {"BENTOML_HOME"}
"""Variables that the image sets, and that are no settings of ours."""
KEYS_OF_THE_USER = {"DATABASE_URL", "API_AUTH_KEY"}
TASKS = ("clip", "faces", "ocr")
each_deployment = pytest.mark.parametrize("name", DEPLOYMENTS)


@pytest.mark.parametrize("release", RELEASES)
def test_the_manifests_are_of_the_apis_form(release: str) -> None:
    checked = [
        kubernetes_validate.validate(one, release, strict=True)
        for one in MANIFESTS.values()
        if one["kind"] not in EXTENSIONS
    ]
    assert len(checked) == 18
    assert set(checked) == {release}


def test_the_check_of_the_form_refuses_what_is_none() -> None:
    wrong = {**MANIFESTS["Service/immich-bento-ocr"], "sepc": {}}
    with pytest.raises(kubernetes_validate.ValidationError, match="sepc"):
        kubernetes_validate.validate(wrong, RELEASES[-1], strict=True)


def test_kinds_that_are_not_kubernetes_own_are_those_of_two_operators() -> None:
    api = {one["kind"]: one["apiVersion"] for one in MANIFESTS.values() if one["kind"] in EXTENSIONS}
    assert api == EXTENSIONS


def test_every_file_is_named_by_a_kustomization_and_every_one_that_is_named_is_there() -> None:
    named: set[Path] = set()
    for folder, content in kustomizations().items():
        resources = [*content.get("resources", ()), *content.get("components", ())]
        resources += [env for one in content.get("configMapGenerator", ()) for env in one["envs"]]
        named |= {FOLDER / folder / resource for resource in resources}
    assert [path for path in named if not path.exists()] == []
    assert {path for path in named if path.suffix == ".yaml"} == set(FILES)
    text = (FOLDER / "kustomization.yaml").read_text(encoding="utf-8")
    offered = set(re.findall(r"^  (?:# )?- (\w+)$", text, re.MULTILINE))
    assert offered == {folder for folder in kustomizations() if folder not in (".", "base")}


def test_the_image_is_named_in_one_place_with_this_version() -> None:
    assert {container(name)["image"] for name in DEPLOYMENTS} == {"immich-bento"}
    tags = {one["name"]: one["newTag"] for content in kustomizations().values() for one in content.get("images", ())}
    assert tags == {"immich-bento": VERSION, "immich-bento-cuda": f"{VERSION}-cuda"}


@each_deployment
def test_what_is_set_are_settings_that_the_service_takes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {variable: value for variable, value in environment(name).items() if isinstance(value, str)}
    assert set(environment(name)) <= set(LEAVES) | OF_THE_IMAGE
    for variable, value in values.items():
        monkeypatch.setenv(variable, value)
    Settings(_env_file=None)


def test_what_the_files_set_are_settings_that_the_service_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    for content in CONFIG_MAPS.values():
        assert set(content) <= set(LEAVES)
        for variable, value in content.items():
            monkeypatch.setenv(variable, value)
    Settings(_env_file=None)


@each_deployment
def test_maps_secrets_claims_and_their_keys_are_there(name: str) -> None:
    maps = [one["configMapRef"]["name"] for one in container(name).get("envFrom", ())]
    assert set(maps) <= set(CONFIG_MAPS)
    for variable, source in environment(name).items():
        if not isinstance(source, dict):
            continue
        if key := source.get("configMapKeyRef"):
            assert key["key"] in CONFIG_MAPS[key["name"]]
        else:
            assert (source["secretKeyRef"]["name"], source["secretKeyRef"]["key"]) == ("immich-bento", variable)
            assert variable in KEYS_OF_THE_USER
    for volume in pod(name)["spec"]["volumes"]:
        if claim := volume.get("persistentVolumeClaim"):
            assert f"PersistentVolumeClaim/{claim['claimName']}" in MANIFESTS
    assert {mount["name"] for mount in container(name)["volumeMounts"]} == {
        volume["name"] for volume in pod(name)["spec"]["volumes"]
    }


@each_deployment
def test_a_pod_has_the_model_of_its_own_task_alone(name: str) -> None:
    """A model that a setting names is fetched at the start, and the pod is not ready before."""
    own = {"clip": "CLIP_MODEL", "faces": "RECOGNITION_MODEL", "ocr": "OCR_MODEL"}
    component = pod(name)["metadata"]["labels"]["app.kubernetes.io/component"]
    expected = {own[component]} if component in own else set()
    assert set(environment(name)) & set(own.values()) == expected
    assert ({"configMapRef": {"name": "immich-bento-models"}} in container(name)["envFrom"]) == (component == "search")


def test_the_gateway_has_no_models_and_asks_every_task_of_a_headless_service() -> None:
    values = {
        variable.lower(): value
        for variable, value in environment("Deployment/immich-bento").items()
        if variable.startswith(("ROUTE_", "IMMICH_API"))
    }
    settings = Settings(_env_file=None, **values)
    assert settings.route_clip == settings.route_faces == settings.route_ocr == "upstream"
    for task in TASKS:
        (server,) = settings.upstreams(getattr(settings, f"immich_api_{task}"))
        assert isinstance(server, DnsName)
        service = MANIFESTS[f"Service/{server.name}"]["spec"]
        assert service["clusterIP"] == "None"
        assert service["ipFamilyPolicy"] == "SingleStack"
        assert service["selector"]["app.kubernetes.io/component"] == task
        assert [port["port"] for port in service["ports"]] == [server.port]


@pytest.mark.parametrize("name", [name for name in MANIFESTS if name.startswith(("Service/", "PodDisruptionBudget/"))])
def test_what_selects_pods_finds_those_of_one_deployment(name: str) -> None:
    spec = MANIFESTS[name]["spec"]
    wanted = spec["selector"].get("matchLabels", spec["selector"])
    found = [one for one in DEPLOYMENTS if wanted.items() <= pod(one)["metadata"]["labels"].items()]
    assert [one.partition("/")[2] for one in found] == [name.partition("/")[2]]
    assert DEPLOYMENTS[found[0]]["spec"]["selector"]["matchLabels"] == pod(found[0])["metadata"]["labels"]
    for port in spec.get("ports", ()):
        assert port["targetPort"] in [one["name"] for one in container(found[0])["ports"]]


@each_deployment
def test_a_pod_is_looked_at_where_the_service_answers_and_has_time_to_end(name: str) -> None:
    port = LEAVES["HTTP_PORT"][1]
    assert container(name)["ports"] == [{"name": "http", "containerPort": port}]
    probes = {kind: container(name)[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")}
    assert {kind: probe["httpGet"] for kind, probe in probes.items()} == {
        "startup": {"path": "/livez", "port": "http"},
        "readiness": {"path": "/readyz", "port": "http"},
        "liveness": {"path": "/livez", "port": "http"},
    }
    # /readyz waits two seconds for a process.
    assert all(probe["timeoutSeconds"] > 2 for probe in probes.values())
    program, pause = container(name)["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "sleep"
    ends = int(environment(name)["SHUTDOWN_TIMEOUT"])
    assert int(pause) >= 10, "a gateway looks at a name every 5 s, and DNS servers keep answers for as long"
    assert pod(name)["spec"]["terminationGracePeriodSeconds"] > int(pause) + ends + 2


def test_running_requests_have_as_long_as_who_asked_them_waits() -> None:
    ends = {name: int(environment(name)["SHUTDOWN_TIMEOUT"]) for name in DEPLOYMENTS}
    upstream, request = (LEAVES[name][1] for name in ("UPSTREAM_TIMEOUT", "REQUEST_TIMEOUT"))
    assert ends.pop("Deployment/immich-bento") == request
    assert set(ends.values()) == {upstream}


@each_deployment
def test_a_pod_may_do_as_little_as_it_needs(name: str) -> None:
    spec, security = pod(name)["spec"], container(name)["securityContext"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 1000
    assert spec["automountServiceAccountToken"] is False
    # Kubernetes would set IMMICH_BENTO_PORT and such, which look like settings.
    assert spec["enableServiceLinks"] is False
    assert security == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {mount["mountPath"] for mount in container(name)["volumeMounts"]} == {"/cache", "/tmp"}
    assert environment(name)["BENTOML_HOME"].startswith("/tmp/"), "figures of pods that share it would be mixed"
    assert set(container(name)["resources"]) == {"requests", "limits"}


def test_what_every_task_has_differs_in_names_and_memory_alone() -> None:
    def alike(task: str) -> str:
        text = (FOLDER / "base" / f"{task}.yaml").read_text(encoding="utf-8")
        text = re.sub(r"memory: \w+|(CLIP|RECOGNITION|OCR)_MODEL|#.*", "", text)
        return re.sub(rf"\b{task}\b", "TASK", text)

    assert alike("clip") == alike("faces") == alike("ocr")


def test_every_pod_is_reached_by_whom_it_is_for_and_by_nobody_else() -> None:
    policies = [one["spec"] for one in MANIFESTS.values() if one["kind"] == "NetworkPolicy"]
    assert all(set(policy["policyTypes"]) == {"Ingress", "Egress"} for policy in policies)

    def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
        return selector.get("matchLabels", {}).items() <= labels.items() and all(
            labels.get(one["key"]) in one["values"] for one in selector.get("matchExpressions", ())
        )

    for name in DEPLOYMENTS:
        labels = pod(name)["metadata"]["labels"]
        assert sum(selects(policy["podSelector"], labels) for policy in policies) == 1, name
    gateway = pod("Deployment/immich-bento")["metadata"]["labels"]
    search = pod("Deployment/immich-bento-search")["metadata"]["labels"]
    for task in TASKS:
        labels = pod(f"Deployment/immich-bento-{task}")["metadata"]["labels"]
        (policy,) = [one for one in policies if selects(one["podSelector"], labels)]
        peers = [peer["podSelector"] for rule in policy["ingress"] for peer in rule["from"] if "podSelector" in peer]
        assert [selects(peer, gateway) for peer in peers] == [True]
        assert [selects(peer, search) for peer in peers] == [False]


def test_pods_are_scaled_by_figures_that_there_are() -> None:
    scaled = [one["spec"] for one in MANIFESTS.values() if one["kind"] == "ScaledObject"]
    assert {f"Deployment/{one['scaleTargetRef']['name']}" for one in scaled} == {
        "Deployment/immich-bento",
        *(f"Deployment/immich-bento-{task}" for task in TASKS),
    }
    queries = {one["scaleTargetRef"]["name"]: one["triggers"][0]["metadata"]["query"] for one in scaled}
    assert [query for query in queries.values() if known(query)] == []
    assert "immich_bento_queue_waiting" in queries["immich-bento"]
    labels = {"clip": "clip", "faces": "facial-recognition", "ocr": "ocr"}
    for task, label in labels.items():
        assert re.findall(r'task="([^"]+)"', queries[f"immich-bento-{task}"]) == [label, label]


def test_the_database_of_the_operator_is_the_one_whose_secret_is_read() -> None:
    (patch,) = kustomizations()["postgres"]["patches"]
    (patched,) = yaml.safe_load(patch["patch"])["spec"]["template"]["spec"]["containers"]
    secret = patched["env"][0]["valueFrom"]["secretKeyRef"]
    assert secret == {"name": f"{MANIFESTS['Cluster/immich-bento-postgres']['metadata']['name']}-app", "key": "uri"}


def test_the_page_names_the_secret_and_says_that_it_was_never_run() -> None:
    page = (ROOT / "docs/kubernetes.md").read_text(encoding="utf-8")
    assert set(re.findall(r"--from-literal=(\w+)=", page)) == KEYS_OF_THE_USER
    assert "never run on a cluster" in page
    assert all(f"`{folder}`" in page for folder in kustomizations() if folder not in (".", "base"))


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not here")
@pytest.mark.parametrize("chosen", ["as it stands", "everything"])
def test_kubectl_builds_what_the_api_takes(chosen: str, tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "kubernetes")
    if chosen == "everything":
        file = tmp_path / "kubernetes" / "kustomization.yaml"
        file.write_text(re.sub(r"^  # - ", "  - ", file.read_text(), flags=re.MULTILINE))
    done = subprocess.run(
        ["kubectl", "kustomize", tmp_path / "kubernetes"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    for one in built:
        assert one["metadata"]["namespace"] == "immich"
        if one["kind"] not in EXTENSIONS:
            kubernetes_validate.validate(one, RELEASES[-1], strict=True)
    deployments = {one["metadata"]["name"]: one["spec"] for one in built if one["kind"] == "Deployment"}
    images = {
        name: one["template"]["spec"]["containers"][0]["image"].rpartition("/")[2] for name, one in deployments.items()
    }
    everything = chosen == "everything"
    assert images.pop("immich-bento-clip") == f"immich-bento:{VERSION}{'-cuda' if everything else ''}"
    assert set(images.values()) == {f"immich-bento:{VERSION}"}
    # What is scaled has no number of its own.
    assert {name for name, one in deployments.items() if "replicas" in one} == (
        {"immich-bento-search"} if everything else set(deployments)
    )
    secrets = re.findall(r"key: uri\n\s+name: ([\w-]+)", done.stdout)
    assert secrets == (["immich-bento-postgres-app"] if everything else [])
