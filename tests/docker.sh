#!/bin/sh
# Builds, starts, scores, trains and stops with docker compose, the way a user does, on a copy of this checkout under
# a project name and a port of its own. One line per check; skips, with the reason, where there is nothing to test with.
set -eu
cd "$(dirname "$0")/.."

skip() {
    echo "skipped: $*"
    exit 0
}
command -v docker >/dev/null || skip "docker is not installed"
docker info >/dev/null 2>&1 || skip "no Docker engine answers"
docker compose version >/dev/null 2>&1 || skip "docker has no compose plugin"
command -v curl >/dev/null || skip "curl is not installed"
git rev-parse >/dev/null 2>&1 || skip "this is no git checkout"

# The caller's own settings must not reach in here.
for variable in $(env | sed -n -e 's/^\(ANOMALY_[A-Z_]*\)=.*/\1/p' -e 's/^\(COMPOSE_[A-Z_]*\)=.*/\1/p'); do unset "$variable"; done
export PORT=0 # any free one

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

# Tracked files and new ones, as they are now, and owned by us: the checkout's own model_store stays as it is.
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
# check NAME COMMAND...: what the command prints goes to the log, which is shown if a check fails.
check() {
    name=$1
    shift
    "$@" >>"$work/log" 2>&1 </dev/null || fail "$name"
    pass "$name"
}
refuse() { ! "$@"; }
in_api() { compose exec -T api "$@"; }
url() { echo "http://127.0.0.1:$(compose port api 8000 | sed 's/.*://')"; }
# says PATTERN PATH CURL-OPTIONS...: the answer matches.
says() {
    pattern=$1
    path=$2
    shift 2
    curl --silent --show-error --max-time 30 "$@" "$(url)$path" >"$work/answer" && cat "$work/answer" \
        && grep -Eq "$pattern" "$work/answer"
}
# within SECONDS COMMAND...: it succeeds before they are over.
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
verdict() { says "\"verdict\": ?\"$1\"" "/score?include=$3" --form "file=@$work/$2"; }

echo "building (the first time takes minutes; log: $work/log)"
check "the serving image builds" compose build api
check "the service comes up healthy" compose up --detach --wait --wait-timeout 120
check "the engine calls it healthy" \
    test "$(docker inspect --format '{{.State.Health.Status}}' "$(compose ps --quiet api)")" = healthy

# Run in the container, whose Python is sure to be there.
golden='import base64, json, pathlib, sys
model = pathlib.Path("model_store/mnist-5")
card = json.loads((model / (model / "CURRENT").read_text().strip() / "manifest.json").read_text())
sys.stdout.buffer.write(base64.b64decode(card["golden"]["image"]))'
white='import sys; from PIL import Image; Image.new("L", (28, 28), 255).save(sys.stdout.buffer, "png")'
in_api python -c "$golden" >"$work/five.png"
in_api python -c "$white" >"$work/white.png"
check "a five is normal" verdict normal five.png ""
check "a white square is an anomaly" verdict anomaly white.png ""

check "it takes less than 300 MB" in_api awk '/^VmRSS/ { print; exit !($2 < 300 * 1024) }' /proc/1/status

check "it does not run as root" refuse test "$(in_api id -u)" = 0
check "its root file system is read-only" in_api grep -Eq '^[^ ]+ / [^ ]+ ro[, ]' /proc/mounts
check "no process has a capability" in_api sh -c '! cat /proc/[0-9]*/status | grep -E "^Cap(Eff|Prm|Bnd):.*[1-9a-f]"'
check "no process can gain privileges" in_api grep -Eq '^NoNewPrivs:.1' /proc/1/status
check "no training packages are in the image" in_api python -c '
from importlib.util import find_spec
there = [name for name in ("sklearn", "torchvision", "matplotlib", "rich", "training", "pip", "uv") if find_spec(name)]
assert not there, there'
check "the log is JSON lines" sh -c 'docker logs "$1" 2>&1 | tail -n 1 | grep -q "^{.*}$"' - "$(compose ps --quiet api)"

check "the training image builds" compose build train
before=$(started)
check "it trains in a container" compose run --rm -T train --data digits --name digits-5 --normal 5
check "what it published is ours" owned_by "$(id -u)" digits-5
check "the new model answers" verdict '(normal|anomaly)' five.png "&model=digits-5"
first=$(version_of digits-5)

# Long enough to look at, then stopped half-way.
check "a long training starts" compose run --detach --name "$project-long" train --data digits --epochs 1000000
check "it gives up every capability" within 30 docker exec "$project-long" grep -Eq '^CapBnd:.0+$' /proc/1/status
check "none is left in use" docker exec "$project-long" grep -Eq '^CapEff:.0+$' /proc/1/status
check "it learns" within 60 sh -c 'docker logs "$1" 2>&1 | grep -q "^epoch"' - "$project-long"
check "it stops when told" docker stop "$project-long"
check "it says that it published nothing" sh -c 'docker logs "$1" 2>&1 | grep "nothing was published"' - "$project-long"
check "the model is as it was" test "$(version_of digits-5)" = "$first"

if [ "$(id -u)" = 0 ]; then # only root can make a checkout of another user's
    owner=1000
    chown -R 1000:1000 model_store
else
    owner=$(id -u)
fi
check "it trains again, in a store of user $owner" \
    compose run --rm -T train --data digits --name digits-5 --normal 5 --seed 7
check "what it published is user $owner's" owned_by "$owner" digits-5
check "the new version is another" refuse test "$(version_of digits-5)" = "$first"
check "the service follows CURRENT" within 5 says "\"version\": ?\"$(version_of digits-5)\"" /models/digits-5
check "all that without a restart" test "$(started)" = "$before"

container=$(compose ps --quiet api)
check "the service stops when told" compose stop api
check "it stopped by itself, with status 0" test "$(docker inspect --format '{{.State.ExitCode}}' "$container")" = 0

check "docker run alone starts the image" docker run --detach --name "$project-alone" --read-only --tmpfs /tmp "$project-api"
check "it serves the model that is baked in" within 60 docker exec "$project-alone" python -c '
import urllib.request as web
assert b"mnist-5" in web.urlopen("http://127.0.0.1:8000/health", timeout=5).read()'
echo "all checks passed"
