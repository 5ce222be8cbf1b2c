#!/bin/sh
# Tests the containers with docker compose, on a copy of this checkout, with its own project name and port. Prints one
# line per check. Skipped, with the reason, if a required tool is missing.
set -eu
cd "$(dirname "$0")/.."

skip() {
    echo "skipped: $*"
    exit 0
}
command -v docker >/dev/null || skip "docker is not installed"
docker info >/dev/null 2>&1 || skip "no Docker engine is running"
docker compose version >/dev/null 2>&1 || skip "docker has no compose plugin"
command -v curl >/dev/null || skip "curl is not installed"
git rev-parse >/dev/null 2>&1 || skip "this is not a git checkout"

# Settings of the caller must not influence the tests.
for variable in $(env | sed -n -e 's/^\(ANOMALY_[A-Z_]*\)=.*/\1/p' -e 's/^\(COMPOSE_[A-Z_]*\)=.*/\1/p'); do unset "$variable"; done
unset HOST
export PORT=0 # any free port

work=$(mktemp -d)
project=anomaly-test-$$
compose() { docker compose --project-name "$project" --env-file /dev/null "$@"; }
clean_up() {
    status=$?
    trap - EXIT INT TERM
    [ "$status" = 0 ] || { tail -n 40 "$work/log" && compose logs --tail 40; } 2>/dev/null || true
    docker rm --force "$project-alone" "$project-long" >/dev/null 2>&1 || true
    compose --profile train down --volumes >/dev/null 2>&1 || true
    docker rmi "$project-api" "$project-train" >/dev/null 2>&1 || true
    cd / && rm -rf "$work"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# Copies tracked and new files, owned by this user; the model_store of the checkout does not change.
mkdir "$work/checkout"
git -c core.quotePath=false ls-files --cached --others --exclude-standard \
    | while IFS= read -r file; do [ ! -e "$file" ] || printf '%s\n' "$file"; done >"$work/files"
tar -cf - -T "$work/files" | tar -xof - -C "$work/checkout"
cd "$work/checkout"

pass() { echo "ok    $*"; }
fail() {
    echo "FAIL  $*"
    exit 1
}
# check NAME COMMAND...: the output goes to the log, which is shown if a check fails.
check() {
    name=$1
    shift
    "$@" >>"$work/log" 2>&1 </dev/null || fail "$name"
    pass "$name"
}
fails() { ! "$@"; }
in_api() { compose exec -T api "$@"; }
url() { echo "http://127.0.0.1:$(compose port api 8000 | sed 's/.*://')"; }
# answers PATTERN PATH CURL-OPTIONS...: the answer matches the pattern.
answers() {
    pattern=$1
    path=$2
    shift 2
    curl --silent --show-error --max-time 30 "$@" "$(url)$path" >"$work/answer" && cat "$work/answer" \
        && grep -Eq "$pattern" "$work/answer"
}
# within SECONDS COMMAND...: repeats the command until it succeeds.
within() {
    left=$(($1 * 5))
    shift
    until "$@"; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || return 1
        sleep 0.2
    done
}
started() { docker inspect --format '{{.Id}} {{.State.StartedAt}} {{.RestartCount}}' "$(compose ps --quiet api)"; }
version_of() { cat "model_store/$1/CURRENT"; }
owned_by() { [ -z "$(find "model_store/$2" ! -user "$1")" ]; }
verdict() { answers "\"verdict\": ?\"$1\"" "/score?include=$3" --form "file=@$work/$2"; }

echo "building (the first time takes minutes; log: $work/log)"
check "the serving image builds" compose build api
check "the service becomes healthy" compose up --detach --wait --wait-timeout 120
check "the engine reports it as healthy" \
    test "$(docker inspect --format '{{.State.Health.Status}}' "$(compose ps --quiet api)")" = healthy

# Runs in the container, because the host may not have Python.
golden='import base64, json, pathlib, sys
model = pathlib.Path("model_store/mnist-5")
manifest = json.loads((model / (model / "CURRENT").read_text().strip() / "manifest.json").read_text())
sys.stdout.buffer.write(base64.b64decode(manifest["golden"]["image"]))'
white='import sys; from PIL import Image; Image.new("L", (28, 28), 255).save(sys.stdout.buffer, "png")'
in_api python -c "$golden" >"$work/five.png"
in_api python -c "$white" >"$work/white.png"
check "a five is normal" verdict normal five.png ""
check "a white square is an anomaly" verdict anomaly white.png ""

check "it uses less than 300 MB" in_api awk '/^VmRSS/ { print; exit !($2 < 300 * 1024) }' /proc/1/status

check "it does not run as root" fails test "$(in_api id -u)" = 0
check "its root file system is read-only" in_api grep -Eq '^[^ ]+ / [^ ]+ ro[, ]' /proc/mounts
check "no process has a capability" in_api sh -c '! cat /proc/[0-9]*/status | grep -E "^Cap(Eff|Prm|Bnd):.*[1-9a-f]"'
check "no process can gain privileges" in_api grep -Eq '^NoNewPrivs:.1' /proc/1/status
check "no training packages are in the image" in_api python -c '
from importlib.util import find_spec
found = [name for name in ("sklearn", "torchvision", "matplotlib", "rich", "training", "pip", "uv") if find_spec(name)]
assert not found, found'
check "the log is JSON lines" sh -c 'docker logs "$1" 2>&1 | tail -n 1 | grep -q "^{.*}$"' - "$(compose ps --quiet api)"

check "the training image builds" compose build train
before=$(started)
check "it trains in a container" compose run --rm -T train --data digits --name digits-5 --normal 5
check "the published files belong to this user" owned_by "$(id -u)" digits-5
check "the new model answers" verdict '(normal|anomaly)' five.png "&model=digits-5"
first=$(version_of digits-5)

# A training that takes long, to be stopped.
check "a long training starts" compose run --detach --name "$project-long" train --data digits --calibration split --epochs 1000000
check "its bounding set of capabilities is empty" within 30 docker exec "$project-long" grep -Eq '^CapBnd:.0+$' /proc/1/status
check "it has no effective capability" docker exec "$project-long" grep -Eq '^CapEff:.0+$' /proc/1/status
check "it prints epochs" within 60 sh -c 'docker logs "$1" 2>&1 | grep -q "^epoch"' - "$project-long"
check "it stops on docker stop" docker stop "$project-long"
check "it reports that nothing was published" sh -c 'docker logs "$1" 2>&1 | grep "nothing was published"' - "$project-long"
check "the model did not change" test "$(version_of digits-5)" = "$first"

if [ "$(id -u)" = 0 ]; then # only root can change the owner
    owner=1000
    chown -R 1000:1000 model_store
else
    owner=$(id -u)
fi
check "it trains again, in a store of user $owner" \
    compose run --rm -T train --data digits --name digits-5 --normal 5 --seed 7
check "the published files belong to user $owner" owned_by "$owner" digits-5
check "the new version is a different one" fails test "$(version_of digits-5)" = "$first"
check "the service serves the new version" within 5 answers "\"version\": ?\"$(version_of digits-5)\"" /models/digits-5
check "the service was not restarted" test "$(started)" = "$before"

container=$(compose ps --quiet api)
check "the service stops on docker compose stop" compose stop api
check "its exit status is 0" test "$(docker inspect --format '{{.State.ExitCode}}' "$container")" = 0

check "the image starts with docker run" docker run --detach --name "$project-alone" --read-only --tmpfs /tmp "$project-api"
check "it serves the model in the image" within 60 docker exec "$project-alone" python -c '
import urllib.request as web
assert b"mnist-5" in web.urlopen("http://127.0.0.1:8000/health", timeout=5).read()'
echo "all checks passed"
