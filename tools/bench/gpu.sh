#!/usr/bin/env bash
# This service on a machine with an NVIDIA GPU: installs what it needs there, serves with DEVICE=cuda, holds the answers
# to those of the processor, and prints throughput and memory. Without a GPU it says so and ends with status 2.
#
#   tools/bench/gpu.sh                      everything, within eight minutes
#   tools/bench/gpu.sh pack FOLDER [HAVE]   where there is a package index: fetch the wheels, in parts below 60 MB
#   tools/bench/gpu.sh take FOLDER          on the other machine: keep the parts that arrived in FOLDER
#
# A machine that reaches no package index gets its wheels in parts, one after the other: `pack` cuts them, `take` keeps
# each where the next call finds it, and a run puts them together. HAVE: `pip freeze` of that machine, or names alone;
# these packages are left out, NVIDIA's libraries among them. PYTHON (python3) is the Python that is used, GPU_FOLDER
# (~/.cache/immich-bento-gpu) what is kept, GPU_SECONDS (460) the time for all of a run, PIP_PLATFORM options of
# `pip download` for a machine of another kind, such as "--python-version 3.12 --platform manylinux_2_28_x86_64".
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
kept=${GPU_FOLDER:-$HOME/.cache/immich-bento-gpu}
python=${PYTHON:-python3}
seconds=${GPU_SECONDS:-460}
part_bytes=58000000
# What the benchmark needs besides requirements-cuda.lock: photos, pages and their measures.
extras="insightface scikit-image scipy imageio lazy-loader tifffile networkx manimgx-fonts-cjk"

say() { printf '%s\n' "$*" >&2; }
end() { say "$1"; exit "${2:-1}"; }

# The pins of both locks that are needed, one a line, without those of packages that a file like pip freeze has.
wanted() {
    local have=${1:-/dev/null}
    {
        cat "$root/requirements-cuda.lock"
        for name in $extras; do grep -i "^$name==" "$root/requirements-test.lock" || true; done
    } | "$python" -c '
import re, sys
plain = lambda name: re.sub("[-_.]+", "-", name).lower()
have = {plain(re.split("[=@ ]", line.strip())[0]) for line in open(sys.argv[1])}
for line in sys.stdin:
    if line.strip() and plain(line.split("==")[0]) not in have:
        print(line.strip())
' "$have"
}

pack() {
    local folder=$1 have=${2:-/dev/null} wheels options
    read -ra options <<< "${PIP_PLATFORM:-}"
    [ ! -e "$folder" ] || end "$folder exists: name a folder that does not, so that no older part is mixed in."
    wheels=$(mktemp -d)
    mkdir -p "$folder"
    wanted "$have" > "$folder/wanted.txt"
    "$python" -m pip download --quiet --no-deps --only-binary :all: --dest "$wheels" "${options[@]}" \
        -r "$folder/wanted.txt"
    # Wheels are compressed: one archive of all, cut into equal parts.
    tar -C "$wheels" -cf - . | split --bytes "$part_bytes" --numeric-suffixes=1 --suffix-length 2 - "$folder/part-"
    rm -r "$wheels"
    (cd "$folder" && sha256sum part-* > parts.sha256)
    say "$(find "$folder" -name 'part-*' | wc -l) parts in $folder, each with parts.sha256 and wanted.txt beside it."
}

take() {
    mkdir -p "$kept/parts"
    cp "$1"/parts.sha256 "$1"/wanted.txt "$kept/parts/"
    find "$1" -maxdepth 1 -name 'part-*' -exec cp {} "$kept/parts/" \;
    say "Kept: $(find "$kept/parts" -name 'part-*' | wc -l) of $(wc -l < "$kept/parts/parts.sha256") parts."
}

# Status 2 where there is no GPU.
require_gpu() {
    command -v nvidia-smi > /dev/null || end "There is no NVIDIA driver here (no nvidia-smi). Nothing was run." 2
    nvidia-smi -L | grep -q . || end "nvidia-smi lists no GPU here. Nothing was run." 2
}

# A virtual environment that sees the packages of PYTHON, with what these lack.
install() {
    local free
    free=$(df --output=avail -B1M "$kept" | tail -1)
    [ "$free" -gt 6000 ] || end "$kept has $free MB free, and 6000 are needed: name another folder by GPU_FOLDER." 3
    "$python" -m venv --system-site-packages "$kept/venv"
    if [ -f "$kept/parts/parts.sha256" ]; then
        (cd "$kept/parts" && sha256sum --check --quiet parts.sha256) >&2 ||
            end "Parts are missing or damaged: bring each with 'tools/bench/gpu.sh take FOLDER', then run again." 3
        mkdir -p "$kept/wheels"
        cat "$kept"/parts/part-* | tar -C "$kept/wheels" -xf -
        "$kept/venv/bin/python" -m pip install --quiet --no-index --no-deps --no-compile "$kept"/wheels/*.whl
    else
        wanted > "$kept/wanted.txt"
        "$kept/venv/bin/python" -m pip install --quiet --no-deps --no-compile --only-binary :all: -r "$kept/wanted.txt" ||
            end "The packages cannot be fetched here: make parts elsewhere with 'tools/bench/gpu.sh pack', bring them." 3
    fi
}

check_cuda() {
    "$kept/venv/bin/python" - << 'PYTHON' || end "ONNX Runtime does not open CUDA here (see above). Nothing was run." 3
import onnxruntime
getattr(onnxruntime, "preload_dlls", lambda: None)()
have = onnxruntime.get_available_providers()
print(f"onnxruntime {onnxruntime.__version__}: {', '.join(have)}")
raise SystemExit("CUDAExecutionProvider" not in have)
PYTHON
}

run() {
    require_gpu
    mkdir -p "$kept"
    if ! "$kept/venv/bin/python" -c 'import bentoml, onnxruntime' 2> /dev/null; then install; fi
    check_cuda
    cd "$root"
    export BENTOML_DO_NOT_TRACK=True OFFLINE=true
    "$kept/venv/bin/python" -m tools.bench gpu --json "${OUT:-$kept}/gpu.json"
    ! grep -q '"NO"' "${OUT:-$kept}/gpu.json" || end "Answers of the GPU and of the processor differ: see Targets." 1
}

case ${1:-run} in
    run)
        if [ -z "${GPU_INNER:-}" ]; then
            GPU_INNER=1 timeout --kill-after 10 "$seconds" "${BASH_SOURCE[0]}" run && exit 0
            status=$?
            [ "$status" -ne 124 ] || say "It took longer than $seconds s and was ended."
            exit "$status"
        fi
        run ;;
    pack) [ $# -ge 2 ] || end "Name the folder to write to: tools/bench/gpu.sh pack FOLDER" 64; pack "$2" "${3:-}" ;;
    take) [ $# -eq 2 ] || end "Name the folder with the parts: tools/bench/gpu.sh take FOLDER" 64; take "$2" ;;
    *) sed -n '2,16s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 64 ;;
esac
