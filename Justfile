# The menu. Words after a recipe go to the program unchanged: `just run domain=medical cpt.train.learning_rate=1e-3`.
set positional-arguments
set quiet

python := ".venv/bin/python"

# show this menu
[private]
default:
    just --list --unsorted

# take a domain from its data to a published checkpoint with a model card: domain=medical, domain=all, or domains=a,b in a chain
[group('run')]
run *words: setup
    {{ python }} -m common run "$@"

# what a run would do and why, with tokens and time, before anything is spent
[group('run')]
plan *words: setup
    {{ python }} -m common plan "$@"

# the inputs of a stage that changed: domain=medical stage=sft
[group('run')]
why *words: setup
    {{ python }} -m common why "$@"

# make one stage again; what follows is remade only where its result differs: domain=medical stage=sft
[group('run')]
rerun *words: setup
    {{ python }} -m common rerun "$@"

# clean the data of a manifest and show what was done, before anything trains: domain=medical data=my.yaml [role=cpt]
[group('run')]
data *words: setup
    {{ python }} -m common data "$@"

# rows as a stage trains on them, tokens with loss in colour: domain=medical stage=sft [rows=5] [at=1] [html=preview.html]
[group('run')]
preview *words: setup
    {{ python }} -m common preview "$@"

# the resolved configuration, each value with the layer that set it
[group('run')]
config *words: setup
    {{ python }} -m common config "$@"

# every domain at a glance
[group('results')]
status *words: setup
    {{ python }} -m common status "$@"

# talk to the result: domain=medical [stage=sft] [prompt="What is …?"]
[group('results')]
chat *words: setup
    {{ python }} -m common chat "$@"

# publish a finished run: domain=medical to=local, or to=hub:<owner>/<name>
[group('results')]
publish *words: setup
    {{ python }} -m common publish "$@"

# remove results that no run refers to: [dry=true]
[group('results')]
gc *words: setup
    {{ python }} -m common gc "$@"

# read every result and published model, and compare it with what was made
[group('results')]
verify *words: setup
    {{ python }} -m common verify "$@"

# one stage of a frozen plan, for schedulers: just stage runs/medical/tiny/demonstration/plan.json sft
[group('results')]
stage *words: setup
    {{ python }} -m common stage "$@"

# the folder of a new domain, which already runs: name=chemistry
[group('develop')]
new-domain *words: setup
    {{ python }} -m common new-domain "$@"

# the tests, offline, on the CPU: [fast=true | slow=true] [tests/store -k name]; fast=true leaves out what is marked slow
[group('develop')]
test *options: setup
    #!/usr/bin/env sh
    set -eu
    left_out="not long"
    for option do
        shift
        case "$option" in
            fast=true) left_out="not slow and not long" ;;
            slow=true) left_out="" ;;
            fast=false | slow=false) ;;
            *) set -- "$@" "$option" ;;
        esac
    done
    unset PYTHONDONTWRITEBYTECODE  # tests start hundreds of programs
    exec {{ python }} -m pytest -n logical --dist loadfile --no-loadscope-reorder -m "$left_out" "$@"

# lint, format and types
[group('develop')]
check: setup
    .venv/bin/ruff check .
    .venv/bin/ruff format --check .
    .venv/bin/mypy

# git hooks that lint, format and refuse large files at each commit; once per clone
[group('develop')]
hooks: setup
    .venv/bin/pre-commit install

# speed and memory as ratios, and the demonstration over three seeds
[group('develop')]
bench *words: setup
    {{ python }} -m tests.bench "$@"

# what a GPU can tell in ten minutes, kept in one file, so that the same command goes on: [device=cpu] [minutes=10]
[group('develop')]
gpu *words: setup
    {{ python }} -m tests.bench.gpu "$@"

# the virtual environment with pinned versions, checked by their hashes; does nothing when it is up to date
[group('develop')]
setup:
    #!/usr/bin/env sh
    set -eu
    if [ -f .venv/stamp ] && cat pyproject.toml requirements.lock | cmp -s - .venv/stamp; then exit 0; fi
    echo "Setting up .venv with pinned versions (once, about 90 seconds) …"
    base="${PYTHON:-python3.11}"
    command -v "$base" >/dev/null 2>&1 || base=python3
    "$base" -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11))' || { echo "error: Python 3.11 or newer is needed; set PYTHON=<path>." >&2; exit 1; }
    "$base" -m venv .venv
    install=".venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile"
    # uv installs what is locked in a sixth of pip's time. It reads no settings of pip: where it cannot, pip does.
    index="$(.venv/bin/python -m pip config get global.index-url 2>/dev/null || true)"
    index="${UV_DEFAULT_INDEX:-${PIP_INDEX_URL:-$index}}"
    sed -n '/^uv==/,/[^\\]$/p' requirements.lock > .venv/uv.lock
    if ! { $install --only-binary :all: --require-hashes -r .venv/uv.lock &&
        env ${index:+UV_DEFAULT_INDEX="$index"} .venv/bin/uv pip install --quiet --python .venv/bin/python \
            --no-deps --require-hashes -r requirements.lock; } 2>/dev/null; then
        $install --no-deps --require-hashes -r requirements.lock
    fi
    $install "$(sed -n 's/^    "\(torch[<>=].*\)",$/\1/p' pyproject.toml)"
    $install --no-deps --no-build-isolation -e .
    # pip would compile all modules on one core; this takes all cores, and leaves out what hardly any program imports.
    .venv/bin/python -m compileall -q -j 0 -x '/(tests|transformers/models|lm_eval/tasks|geodata|mypyc?|pip)/' \
        .venv/lib common >/dev/null || true
    cat pyproject.toml requirements.lock > .venv/stamp
    echo "Ready."
