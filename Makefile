# fedtwin from a fresh checkout. Each target sets up what it needs; `make` alone lists them.
#
# Variables:
#   PYTHON       the interpreter that .venv is made with, 3.11 or newer        (python3)
#   TORCH_INDEX  address of a package index that torch and torchvision are taken from, for people
#                who want the small build without CUDA                          (none)
#   PROCESSES    that share the tests of `make test` out: many of them wait, so more than cores  (3)
#   ARGS         more words for `fedtwin demo` or pytest: make test-fast ARGS="-k twin"
#   COMPOSE      the program that reads compose files                      (docker compose)
#   PROFILES     who streams images in the compose stack: producers, folder, or nobody (producers)
#   MONITORING   1: with Prometheus and a board                            (none)

PYTHON ?= python3
TORCH_INDEX ?=
ARGS ?=
PROCESSES ?= 3
COMPOSE ?= docker compose
PROFILES ?= producers

PACKAGES := schemas learning infra producers twins aggregator proxy experiments
BIN := .venv/bin
UV_INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt
STAMP := .venv/.fedtwin-installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast coverage check up down bench chaos same-bytes soak clean ci-setup
.PHONY: compose-up compose-down compose-cli compose-images
MAKEFLAGS += --no-print-directory

# Python keeps what it has compiled, also where the environment forbids it, as it does in many
# containers: what imports torch starts in half the time, and a run starts many programs.
export PYTHONDONTWRITEBYTECODE :=

help:
	@echo "make demo       a first run with its report; needs no service"
	@echo "make test       every test that this machine can run, with a real Kafka and Redis"
	@echo "make test-fast  the tests that need no service and less than a minute"
	@echo "make coverage   lines and branches of schemas, learning, aggregator: at least 95 % of each"
	@echo "make check      format, lint, types and the rules of the house"
	@echo "make up         start Kafka and Redis on this machine; addresses in .services.json"
	@echo "make down       end them; their data stays until make clean"
	@echo "make compose-up      a live federation in containers; make compose-down takes it away"
	@echo "make compose-cli     a command in it: make compose-cli ARGS='inject --help'"
	@echo "make compose-images  where no registry can be reached, first: its base, Kafka and Redis"
	@echo "make bench      the measurements of benchmarks/"
	@echo "make chaos      every role of a run over Kafka killed at every point, and its services"
	@echo "make same-bytes one recipe in one process, over Kafka in many ways, and replayed"
	@echo "make soak       half an hour of a live federation whose programs and services are treated badly"
	@echo "make clean      take away .venv, caches, services with their data, runs of the demo"
	@echo "make ci-setup   install what the machine lacks (Debian, as root), then the project"

# --- setting up: done once, and again when what is asked for has changed --------------------------

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "fedtwin needs Python 3.11 or newer; name one: make PYTHON=python3.12" >&2; exit 1; }
	@echo "setting up .venv (torch is large: this takes a few minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv \
		|| { rm -rf .venv; echo "no venv: apt-get install python3-venv (Debian, Ubuntu)" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt uv
	@test -z "$(TORCH_INDEX)" \
		|| $(UV_INSTALL) --default-index "$(TORCH_INDEX)" --no-deps torch torchvision
	@$(UV_INSTALL) --editable '.[dev,kafka,onnx,detection]'
	@touch $@

# --- running --------------------------------------------------------------------------------------

demo: $(STAMP)
	@$(BIN)/fedtwin demo $(ARGS)
	@echo "make demo: that was a whole run; the lines above name its folder and its report."

# Kafka and Redis as `make up` brings them, or as the environment names them. This takes a while.
chaos: $(STAMP)
	@$(BIN)/python -m infra.native up
	@$(BIN)/pytest -q tests/distributed
	@$(BIN)/python -m tests.distributed.chaos $(ARGS)
	@echo "make chaos: every role was killed at every point; the table is above."

# Real images: CIFAR-100 in FEDTWIN_DATA_DIR or the cache.
same-bytes: $(STAMP)
	@$(BIN)/python -m infra.native up
	@$(BIN)/python -m tests.distributed.same_bytes $(ARGS)

# Kafka and Redis of its own. Half an hour, and the replay of its log.
soak: $(STAMP)
	@$(BIN)/python -m tests.distributed.soak $(ARGS)

bench: $(STAMP)
	@for each in benchmarks/*.py; do echo "== $$each"; $(BIN)/python "$$each" || exit 1; done
	@echo "make bench: that was everything in benchmarks/, on $$(getconf _NPROCESSORS_ONLN) cores."

up: $(STAMP)
	@$(BIN)/python -m infra.native up

down: $(STAMP)
	@$(BIN)/python -m infra.native down

# --- in containers --------------------------------------------------------------------------------

# Paths in the environment or in .env are the caller's, not those of the folder that compose.yaml lies in;
# compose alone reads one with a $ in it.
PATHS := FEDTWIN_CONFIG FEDTWIN_DATA FEDTWIN_FILES FEDTWIN_IMAGES
LINE = sed -nE "s/^ *(export +)?$(1) *= *[\"']?([^\"' ]*).*/\2/p" .env | tail -n 1
said = $(or $($(1)),$(if $(wildcard .env),$(shell $(LINE))))
HASH := \#
place = $(subst $(HASH),\$(HASH),$(abspath $(patsubst ~/%,$(HOME)/%,$(1))))
$(foreach each,$(PATHS),$(if $(call said,$(each)),$(if $(findstring $$,$(call said,$(each))),,\
	$(eval override export $(each) := $(call place,$(call said,$(each)))))))
LOCAL := $(wildcard .compose.env)
BOARD := --file infra/deploy/monitoring/compose.yaml --profile monitoring
STACK = $(COMPOSE) --project-name fedtwin $(if $(wildcard .env),--env-file .env) \
	$(if $(LOCAL),--env-file .compose.env) --file infra/deploy/compose.yaml \
	$(if $(LOCAL),--file infra/deploy/local.yaml)
EVERYBODY := $(BOARD) --profile producers --profile folder --profile cli
compose-up: STACK += $(if $(MONITORING),$(BOARD))

compose-up:
	@$(STACK) build \
		|| { echo "make compose-up: no images; without a registry, make compose-images first" >&2; \
			exit 1; }
	@$(STACK) up --detach --wait --wait-timeout 180 --no-build \
		|| { $(STACK) ps --all; echo "make compose-up: not all are healthy; $(STACK) logs" >&2; \
			exit 1; }
	@test -z "$(PROFILES)" \
		|| $(STACK) $(PROFILES:%=--profile %) up --detach --no-build $(PROFILES)
	@$(STACK) ps --all
	@echo "make compose-up: the federation is up, and healthy. What to do next:"
	@echo "  make compose-cli ARGS='inject --entity ward --classes 6,7 --images 120'   new classes come"
	@echo "  make compose-cli ARGS='--help'                                            all commands"
	@echo "  make compose-down           take it away with all that it holds; KEEP=1 leaves the volumes"

compose-down:
	@$(STACK) $(EVERYBODY) down --remove-orphans $(if $(KEEP),,--volumes) $(if $(IMAGES),--rmi all)
	@echo "make compose-down: containers and network are gone; volumes $(if $(KEEP),stay,too);" \
		"images $(if $(IMAGES),too,stay until IMAGES=1)."
	@test -z "$(IMAGES)" || echo "make compose-down: what builds have left goes with" \
		"docker image rm fedtwin-base; docker image prune; docker builder prune --all"

# A folder that is not there would be made by the engine, and be root's.
compose-cli:
	@test -z "$(FEDTWIN_FILES)" || test -e "$(FEDTWIN_FILES)" || mkdir -m 1777 "$(FEDTWIN_FILES)"
	@$(STACK) run --rm --no-deps fedtwin fedtwin $(ARGS)

compose-images:
	@$(PYTHON) -m infra.deploy $(ARGS)
	@echo "make compose-images: they are here; make compose-up uses them, and pulls nothing."

# --- testing --------------------------------------------------------------------------------------

test-fast: $(STAMP)
	@$(BIN)/pytest -q -m "not slow and not kafka and not redis and not docker" $(ARGS)
	@echo "make test-fast: ran what needs no service; make test also runs the slow tests and Kafka's."

# Services come from where they are found: addresses in the environment or of `make up`, containers,
# child processes of the tests' own. On a person's machine a missing one costs only its tests;
# continuous integration (CI=true) has installed all of them, so there it is an error.
# Tests of a file stay together; files are shared out in the order of tests/conftest.py, which
# --no-loadscope-reorder leaves so. What -m in ARGS asks for, one process runs.
test: $(STAMP)
	@case " $(ARGS) " in \
	*" -m "*) $(BIN)/pytest -q $(ARGS);; \
	*) $(BIN)/pytest -q -n $(PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS);; \
	esac; result=$$?; \
	echo "make test: ran $(if $(ARGS),what ARGS names,every test that this machine can run)."; \
	echo "What was skipped, and why, is listed above as SKIPPED; behind it stands each service."; \
	exit $$result

# What is measured is the process of the tests; programs that they start count for nothing.
COVERED := schemas learning aggregator
coverage: $(STAMP)
	@$(BIN)/pytest -q -m "not slow and not kafka and not redis and not docker" --cov-branch \
		$(COVERED:%=--cov=%) --cov-report= $(COVERED:%=tests/%) tests/paper tests/flows $(ARGS)
	@for each in $(COVERED); do $(BIN)/coverage report --include="$$each/*" --skip-covered \
		--omit="*/__main__.py" --show-missing --fail-under=95 || exit 1; done
	@echo "make coverage: at least 95 % of each, its programs left out."

check: $(STAMP)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy $(PACKAGES) tests benchmarks  # strict, by pyproject; --strict here would undo it
	@$(BIN)/pytest -q tests/test_floors.py tests/test_house.py
	@echo "make check: format, lint, types and the rules of the house hold."

# --- the machine ----------------------------------------------------------------------------------

# In CI the tests start an engine of their own. Without one they are skipped, and say so.
CONTAINERS = command -v dockerd >/dev/null && command -v debootstrap >/dev/null \
	|| { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y \
		--no-install-recommends docker.io debootstrap; } >/dev/null 2>&1 \
	|| echo "make ci-setup: no container engine can be installed; its tests will be skipped" >&2

# Of Debian's prometheus only promtool is taken, which tries the alert rules: to install the package
# would start a server.
PROMTOOL = command -v promtool >/dev/null || { \
	part="$$(mktemp -d)" && cd "$$part" \
	&& apt-get update -qq && apt-get -qq -o APT::Sandbox::User=root download prometheus >/dev/null \
	&& dpkg-deb --extract prometheus_*.deb . && install usr/bin/promtool /usr/local/bin/ \
	&& echo "make ci-setup: installed promtool."; found=$$?; rm -rf "$$part"; \
	[ $$found -eq 0 ] || echo "make ci-setup: no promtool: root takes it from Debian's package" \
		"prometheus; its test will fail under CI=true, and be skipped elsewhere" >&2; }

ci-setup:
	@missing=; \
	command -v redis-server >/dev/null || missing="$$missing redis-server"; \
	command -v java >/dev/null || missing="$$missing default-jre-headless"; \
	command -v mvn >/dev/null || missing="$$missing maven"; \
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || missing="$$missing python3-venv"; \
	if [ -z "$$missing" ]; then echo "make ci-setup: the machine has all that it needs."; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
			apt-get install -qq -y --no-install-recommends $$missing >/dev/null \
			&& echo "make ci-setup: installed$$missing."; \
	else echo "make ci-setup: missing, and only root can apt-get install it:$$missing" >&2; fi
	@$(PROMTOOL)
	@$(if $(filter true,$(CI)),$(CONTAINERS))
	@$(MAKE) -s $(STAMP)

# Services run on without .venv, and to end them takes no package: only then may their folder go.
END := import sys; from pathlib import Path; from infra.native.programs import stop; \
	[stop(Path(each).parent) for each in sys.argv[1:]]

clean:
	@python=$(BIN)/python; [ -x $$python ] || python=$(PYTHON); \
	for each in .native/*/program.json; do \
		[ ! -e "$$each" ] || $$python -c '$(END)' "$$each" \
			|| { echo "make clean: what $$each names runs on, and everything is left" >&2; exit 1; }; \
	done
	@rm -rf .venv .native .services.json .compose.env build dist *.egg-info runs/demo-* .coverage* htmlcov
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "make clean: only the sources and your own runs are left."
