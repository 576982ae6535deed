#!/usr/bin/env bash
# make container: build the image, then run it as docker-compose.yml does: locked down, with little memory, and see that it is
# ready, answers, keeps a job over a kill, refuses what does not fit, and stops in time. Then the profile "scale" as it is shipped
# (deploy/check_scale.py), where there is a compose: kill -9 and replacement under load, none of 500 requests lost.
#
#   ENGINE       podman or docker; by default whichever is there; without either this says so and ends well
#   BUILD_ARGS   more arguments for its build, such as "--build-arg TORCH_INDEX=https://pypi.org/simple"
#   SKIP_BUILD   set: take the image that is there
set -euo pipefail
cd "$(dirname "$0")/.."
engine=${ENGINE:-$(command -v podman || command -v docker || true)}
if [ -z "$engine" ] || ! "$engine" info > /dev/null 2>&1; then
    echo "make container: skipped, there is no podman or docker that runs"
    exit 0
fi
image=tracegrad:check
name=tracegrad-check-$$
port=${PORT:-18000}
url=http://127.0.0.1:$port
seconds() { date +%s; }
say() { echo "make container: $*"; }
ask() { python3 - "$@" <<'PYTHON'
import json, sys, urllib.error, urllib.request
method, url, *body = sys.argv[1:]
data = body[0].encode() if body else None
request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
try:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=120) as answer:
        print(answer.status, answer.read().decode())
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
except OSError:
    print(0)
PYTHON
}
until_answer() { # what is wanted at the begin of the answer, then as ask
    local wanted=$1 answer; shift
    for _ in $(seq 1 "${PATIENCE_S:-300}"); do
        answer=$(ask "$@")
        if [[ $answer == $wanted ]]; then return 0; fi
        sleep 1
    done
    say "waited in vain for $*: $answer"
    "$engine" logs --tail 20 "$name" || true
    return 1
}
trap '"$engine" rm --force --volumes "$name" > /dev/null 2>&1 || true; "$engine" volume rm "$name" > /dev/null 2>&1 || true' EXIT

if [ -z "${SKIP_BUILD:-}" ]; then
    began=$(seconds)
    format=(); [[ $engine == *podman ]] && format=(--format docker) # HEALTHCHECK is no part of the other one
    # shellcheck disable=SC2086
    "$engine" build "${format[@]}" ${BUILD_ARGS:-} --build-arg REVISION="$(git rev-parse HEAD)" -t "$image" .
    say "built in $(($(seconds) - began)) s"
fi
began=$(seconds)
"$engine" run --detach --name "$name" --publish "127.0.0.1:$port:8000" --read-only --cap-drop ALL \
    --security-opt no-new-privileges --pids-limit 256 --tmpfs /tmp:rw,noexec,nosuid,nodev,size=256m \
    --volume "$PWD/checkpoints:/checkpoints:ro" --volume "$name:/jobs" --memory 2g \
    --env TRACEGRAD_DEVICE=cpu "$image" > /dev/null
until_answer '200 *' GET "$url/health/ready"
say "ready after $(($(seconds) - began)) s"
water='{"structure": {"kind": "atoms", "numbers": [8, 1, 1], "positions": [[0, 0, 0.119], [0, 0.763, -0.477], [0, -0.763, -0.477]]}}'
[[ $(ask POST "$url/v1/predict" "$water") == 200* ]] || { say "no prediction"; exit 1; }
say "predicts"
chain() { # of so many hydrogen atoms
    python3 -c "
import json
p = [[3.0 * (i // 2) + 0.74 * (i % 2), 0, 0] for i in range($1)]
print(json.dumps({'structure': {'kind': 'atoms', 'numbers': [1] * $1, 'positions': p}}))"
}
[[ $(ask POST "$url/v1/predict" "$(chain 190)") == '413 '*too_large_for_memory* ]] || { say "2 GB took 190 atoms"; exit 1; }
say "refuses what does not fit"
job=$(ask POST "$url/v1/jobs" "$water" | sed 's/^[0-9]* //' | python3 -c 'import json, sys; print(json.load(sys.stdin)["id"])')
"$engine" kill --signal KILL "$name" > /dev/null
"$engine" start "$name" > /dev/null
until_answer '200 *"state":"done"*' GET "$url/v1/jobs/$job"
say "a job outlives a kill"
[[ $(ask POST "$url/v1/jobs" "$(chain 80)") == 202* ]] || { say "no job"; exit 1; }
for _ in 1 2 3 4; do
    while [[ $(ask POST "$url/v1/predict" "$water") == 200* ]]; do :; done &
done
sleep 3
began=$(seconds)
"$engine" stop --time 60 "$name" > /dev/null
took=$(($(seconds) - began))
code=$("$engine" inspect --format '{{.State.ExitCode}}' "$name")
say "stopped in $took s under load with exit code $code"
[ "$code" = 0 ]
[ "$took" -le 10 ]
wait
"$engine" rm "$name" > /dev/null
ENGINE=$engine python3 deploy/check_scale.py
