"""The page over Immich's pictures: visitors see what Immich shows them, the key everybody's by their owners' keys."""

from __future__ import annotations

from uuid import uuid4

import pytest

from tests.search.indexing.redoing import rows
from tests.web.library import Library
from tests.web.pages import KEY, Pages, code, session_of


def found(pages: Pages, headers: dict[str, str], query: str = "q=ocr:发票") -> set[str]:
    return {hit["id"] for hit in pages.get(f"search?{query}", headers)["hits"]}


def test_a_session_of_immich_is_enough_to_be_known(library: Library) -> None:
    pages = library.pages()
    told = pages.get("me", session_of(library.ann))
    assert told["visitor"] == {"kind": "immich", "name": "ann", "admin": False, "cookie": False}
    assert (told["source"], told["immich_address"]) == ("immich", "")
    assert pages.get("me", {"cookie": "immich_access_token=nonsense"})["visitor"] is None
    assert pages.get("me")["immich_address"] == "https://photos.example"


def test_a_session_in_a_header_is_no_guess_and_is_known_while_others_have_to_wait(library: Library) -> None:
    pages = library.pages()
    for _ in range(8):
        assert pages.get("me", {"authorization": f"Bearer {library.ann.token}"})["visitor"]["name"] == "ann"
        assert pages.get("me")["visitor"]["kind"] == "key"
    for number in range(5):
        both = {**session_of(library.ann), "authorization": f"Bearer guess-{number}"}
        pages.ask("GET", "/ai/api/me", both)
    assert code(pages.ask("GET", "/ai/api/me")) == (429, "too_many_attempts")
    assert pages.get("me", session_of(library.ann))["visitor"]["name"] == "ann"


def test_a_search_finds_the_visitors_own_pictures_alone(library: Library) -> None:
    own, other = library.add(library.ann, "发票"), library.add(library.bob, "发票")
    pages = library.pages()
    assert found(pages, session_of(library.ann)) == {str(own)}
    assert found(pages, session_of(library.bob)) == {str(other)}
    assert found(pages, session_of(library.admin)) == set()
    assert found(pages, KEY) == {str(own), str(other)}


def test_partners_pictures_are_found_if_immich_shows_them(library: Library) -> None:
    library.bob.partners = ((library.ann, True),)
    own, shared, foreign = (library.add(user, "发票") for user in (library.bob, library.ann, library.admin))
    assert found(library.pages(), session_of(library.bob)) == {str(own), str(shared)}
    assert str(foreign) not in found(library.pages(), session_of(library.bob))


def test_nothing_hints_at_pictures_of_others(library: Library) -> None:
    library.bob.partners = ((library.ann, True),)
    shared = library.add(library.ann, "发票")
    for _ in range(8):
        library.add(library.admin, "发票")
    library.immich.seen.clear()
    told = library.pages().get("search?q=ocr:发票&limit=1", session_of(library.bob))
    assert ([hit["id"] for hit in told["hits"]], told["next_cursor"]) == ([str(shared)], None)
    asked = {seen.target for seen in library.immich.seen if seen.target.startswith("/api/assets/")}
    assert asked == {f"/api/assets/{shared}"}
    alike = library.pages().get(f"assets/{shared}/similar", session_of(library.bob))["hits"]
    assert alike == []


def test_nothing_hints_at_what_a_partner_has_archived(library: Library) -> None:
    library.bob.partners = ((library.ann, True),)
    first = library.add(library.ann, "发票 much else")
    archived = [library.add(library.ann, "发票") for _ in range(3)]
    last = library.add(library.ann, "发票 much else besides")
    for asset in archived:
        library.archive(asset)
    library.immich.seen.clear()
    bob = session_of(library.bob)
    told = library.pages().get("search?q=ocr:发票&limit=2", bob)
    assert ([hit["id"] for hit in told["hits"]], told["next_cursor"]) == ([str(first), str(last)], None)
    assert [hit["ocr"]["rank"] for hit in told["hits"]] == [1, 2]
    alike = library.pages().get(f"assets/{first}/similar", bob)["hits"]
    assert [hit["id"] for hit in alike] == [str(last)]
    beside = library.pages().get(f"assets/{first}", bob)
    assert (beside["previous"], beside["next"]) == (str(last), None)
    asked = {seen.target for seen in library.immich.seen}
    assert not [target for target in asked for asset in archived if str(asset) in target]
    own = library.pages().get(f"assets/{first}", session_of(library.ann))
    assert own["previous"] == str(archived[0])


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("GET", "/similar"),
        ("GET", "/faces"),
        ("GET", "/picture"),
        ("GET", "/picture?size=preview"),
        ("POST", "/redo"),
    ],
)
def test_an_asset_of_somebody_else_looks_like_none(library: Library, method: str, path: str) -> None:
    asset = library.add(library.bob, "秘密")
    body = {"tasks": ["ocr"]} if method == "POST" else None
    answers = [
        library.pages().ask(method, f"/ai/api/assets/{one}{path}", session_of(library.ann), json=body)
        for one in (asset, uuid4())
    ]
    assert [code(answer) for answer in answers] == [(404, "unknown_asset")] * 2
    assert str(asset) not in answers[0].text.replace(f"asset {asset} ", "")
    assert "秘密" not in answers[0].text


def test_what_is_shared_in_an_album_can_be_opened(library: Library) -> None:
    asset = library.add(library.bob, "发票")
    library.shared.add((asset, library.ann.id))
    assert library.pages().get(f"assets/{asset}", session_of(library.ann))["text"] == "发票"


def test_the_pictures_beside_one_are_told_only_to_whoever_has_them_in_their_timeline(library: Library) -> None:
    """To others, a gap between two pictures of an album would tell that there is one that they may not see."""
    older, beside, asset = (library.add(library.bob) for _ in range(3))
    for shared in (asset, older, beside):
        library.shared.add((shared, library.ann.id))
    pages = library.pages()
    assert pages.get(f"assets/{asset}", session_of(library.bob))["next"] == str(beside)
    assert pages.get(f"assets/{asset}", session_of(library.ann))["next"] is None
    assert pages.get(f"assets/{beside}", session_of(library.ann))["previous"] is None
    assert pages.get(f"assets/{asset}")["next"] == str(beside)


def test_pictures_and_faces_are_immichs_with_the_visitors_own_rights(library: Library) -> None:
    asset = library.add(library.ann)
    pages = library.pages()
    library.immich.seen.clear()
    (face,) = pages.get(f"assets/{asset}/faces", session_of(library.ann))["faces"]
    assert face == {"x1": 0.1, "y1": 0.1, "x2": 0.5, "y2": 0.6, "name": "<b>Ann</b>"}
    assert pages.get(f"assets/{asset}/faces", session_of(library.ann))["found_at"] is None
    done = """update public.asset_job_status set "facesRecognizedAt" = '2026-01-02' where "assetId" = %s"""
    rows(library.database, done, asset)
    assert pages.get(f"assets/{asset}/faces", session_of(library.ann))["found_at"].startswith("2026-01-0")
    assert all("x-api-key" not in seen.headers for seen in library.immich.seen)


def test_with_the_key_pictures_come_by_the_keys_of_their_owners(library: Library) -> None:
    pages = library.pages(immich_api_key=library.ann.token, immich_api_keys=library.bob.token)
    for user in (library.ann, library.bob):
        asset = library.add(user)
        assert len(pages.get(f"assets/{asset}/faces")["faces"]) == 1
    assert code(pages.ask("GET", f"/ai/api/assets/{library.add(library.admin)}/faces")) == (404, "unknown_asset")


def test_a_picture_is_passed_on_only_if_it_is_one(library: Library) -> None:
    asset = library.add(library.ann)
    library.immich.override = lambda seen: (200, b"{}") if "/thumbnail" in seen.target else library._answer(seen)
    response = library.pages().ask("GET", f"/ai/api/assets/{asset}/picture", session_of(library.ann))
    assert code(response) == (502, "immich_unavailable")


def test_the_library_and_what_failed_are_the_visitors_own(library: Library) -> None:
    assets = {user.name: library.add(user, "发票") for user in (library.ann, library.bob)}
    for asset in assets.values():
        rows(
            library.database,
            "insert into immich_ai.failure (asset_id, task, code, message) values (%s, 'ocr', 'timeout', 'Late.')",
            asset,
        )
    pages = library.pages()
    for user in (library.ann, library.bob):
        told = pages.get("library", session_of(user))
        assert (told["assets"], told["read"], told["failed"]) == (1, 1, 1)
        listed = pages.get("failures", session_of(user))["pictures"]
        assert [one["id"] for one in listed] == [str(assets[user.name])]
    assert pages.get("library")["assets"] == 2
    assert len(pages.get("failures")["pictures"]) == 2
    retried = pages.ask(
        "POST", "/ai/api/retry", session_of(library.ann), json={"id": str(assets["bob"]), "tasks": ["ocr"]}
    )
    assert code(retried) == (404, "unknown_asset")


def test_text_that_immich_may_have_lost_is_listed_for_its_owner(library: Library) -> None:
    asset = library.add(library.ann)
    pages = library.pages()
    (listed,) = pages.get("lost", session_of(library.ann))["pictures"]
    assert (listed["id"], listed["retry"]["tasks"]) == (str(asset), ["ocr"])
    assert pages.get("lost", session_of(library.bob))["pictures"] == []


def test_the_system_is_for_administrators_and_the_key(library: Library) -> None:
    pages = library.pages()
    assert code(pages.ask("GET", "/ai/api/system", session_of(library.ann))) == (403, "forbidden")
    assert pages.get("system", session_of(library.admin))["versions"]["Immich"] == "3.1.0"
    assert pages.get("system")["versions"]["Immich"] == "3.1.0"


def test_a_session_of_immich_is_enough_to_do_a_photo_again(library: Library) -> None:
    asset = library.add(library.ann, "旧的")
    pages = library.pages()
    library.immich.seen.clear()
    answer = pages.ask(
        "POST", f"/ai/api/assets/{asset}/redo", session_of(library.ann), json={"tasks": ["ocr", "faces"]}
    )
    assert answer.json()["done"] == ["ocr", "faces"]
    assert pages.get(f"assets/{asset}", session_of(library.ann))["text"] == "发票 A-1"
    asked = [seen.target for seen in library.immich.seen if "thumbnail" in seen.target or seen.method == "POST"]
    assert asked == [f"/api/assets/{asset}/thumbnail?size=preview", "/api/assets/jobs"]
    rows(
        library.database,
        "insert into immich_ai.failure (asset_id, task, code, message) values (%s, 'ocr', 'timeout', 'Late.')",
        asset,
    )
    (listed,) = pages.get("failures", session_of(library.ann))["pictures"]
    retried = pages.ask("POST", "/ai/api/retry", session_of(library.ann), json=listed["retry"])
    assert retried.json()["done"] == ["ocr"]


READS = ("user.read", "asset.read", "asset.view")


@pytest.mark.parametrize("path", ["assets/{}/redo", "retry"])
def test_whoever_may_only_look_cannot_have_a_photo_done_again(library: Library, path: str) -> None:
    asset = library.add(library.ann, "旧的")
    library.shared.add((asset, library.bob.id))
    library.immich.keys["looks"] = library.ann, READS
    pages = library.pages()
    body = {"tasks": ["ocr"]} if path != "retry" else {"id": str(asset), "tasks": ["ocr"]}
    for headers in (session_of(library.bob), {"x-api-key": "looks"}, {**session_of(library.ann), "x-api-key": "x"}):
        refused = pages.ask("POST", f"/ai/api/{path.format(asset)}", headers, json=body)
        assert code(refused) == (403, "forbidden")
    assert pages.get(f"assets/{asset}", session_of(library.bob))["text"] == "旧的"


def test_a_photo_offers_what_its_visitor_may_have_done(library: Library) -> None:
    library.bob.partners = ((library.ann, True),)
    own, album, archive = library.add(library.ann), library.add(library.admin), library.add(library.ann)
    library.archive(archive)
    library.shared |= {(album, library.bob.id), (archive, library.bob.id)}
    library.immich.keys |= {"looks": (library.ann, READS), "writes": (library.ann, (*READS, "asset.update"))}
    ann, bob = session_of(library.ann), session_of(library.bob)
    everything = ["ocr", "clip", "faces"]
    for asset, headers, tasks in (
        (own, ann, everything),
        (archive, ann, everything),
        (own, KEY, everything),
        (own, {"x-api-key": "writes"}, everything),
        (own, {"x-api-key": "looks"}, []),
        (own, bob, ["ocr", "clip"]),
        (album, bob, []),
        (archive, bob, []),
    ):
        assert library.pages().get(f"assets/{asset}", headers)["tasks"] == tasks
    refused = library.pages().ask("POST", f"/ai/api/assets/{archive}/redo", bob, json={"tasks": ["ocr"]})
    assert code(refused) == (403, "forbidden")


@pytest.mark.parametrize("permission", ["asset.update", "all"])
def test_an_api_key_that_may_change_pictures_may_have_them_done_again(library: Library, permission: str) -> None:
    asset = library.add(library.ann, "旧的")
    library.immich.keys["writes"] = library.ann, (*READS, permission)
    path = f"/ai/api/assets/{asset}/redo"
    done = library.pages().ask("POST", path, {"x-api-key": "writes"}, json={"tasks": ["ocr"]})
    assert done.json()["done"] == ["ocr"]


def test_an_api_key_has_counts_and_lists_by_asset_read_and_the_system_by_all(library: Library) -> None:
    library.immich.keys |= {
        "me": (library.admin, ["user.read"]),
        "reads": (library.admin, READS),
        "all": (library.admin, ["all"]),
    }
    told = [
        [
            library.pages().ask("GET", f"/ai/api/{path}", {"x-api-key": key}).status_code
            for key in ("me", "reads", "all")
        ]
        for path in ("library", "search?q=ocr:x", "failures", "lost", "system")
    ]
    assert told == [*[[403, 200, 200]] * 4, [403, 403, 200]]


def test_a_partner_may_read_a_photo_again_and_only_its_owner_have_faces_found(library: Library) -> None:
    library.bob.partners = ((library.ann, True),)
    asset = library.add(library.ann, "旧的")
    path, pages = f"/ai/api/assets/{asset}/redo", library.pages()
    assert pages.ask("POST", path, session_of(library.bob), json={"tasks": ["ocr"]}).status_code == 200
    refused = pages.ask("POST", path, session_of(library.bob), json={"tasks": ["faces"]})
    assert code(refused) == (404, "unknown_asset")
    assert "for its owner" in refused.json()["detail"]


def test_with_the_services_key_a_photo_is_done_again_by_the_keys_of_immichs_users(library: Library) -> None:
    asset = library.add(library.ann, "旧的")
    path, body = f"/ai/api/assets/{asset}/redo", {"tasks": ["ocr"]}
    refused = library.pages().ask("POST", path, json=body)
    assert code(refused) == (502, "immich_unavailable")
    assert "IMMICH_API_KEY" in refused.json()["detail"]
    keys = {"immich_api_key": library.bob.token, "immich_api_keys": library.ann.token}
    assert library.pages(**keys).ask("POST", path, json=body).status_code == 200


def test_an_immich_that_is_away_is_told_to_visitors_and_does_not_matter_to_the_key(library: Library) -> None:
    asset = library.add(library.ann, "发票")
    pages = library.pages()
    pages.settings = pages.settings.model_copy(update={"immich_url": "http://127.0.0.1:9"})
    response = pages.ask("GET", "/ai/api/library", session_of(library.ann))
    assert code(response) == (502, "immich_unavailable")
    assert pages.get(f"assets/{asset}")["text"] == "发票"


def test_locked_and_trashed_pictures_are_nobodys(library: Library) -> None:
    asset = library.add(library.ann, "发票")
    for change in (
        "visibility = 'locked'",
        "visibility = 'hidden'",
        """visibility = 'timeline', "deletedAt" = now()""",
    ):
        rows(library.database, f"update public.asset set {change} where id = %s", asset)
        for headers in (session_of(library.ann), KEY):
            response = library.pages().ask("GET", f"/ai/api/assets/{asset}", headers)
            assert code(response) == (404, "unknown_asset")
            assert found(library.pages(), dict(headers)) == set()
