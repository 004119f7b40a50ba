# Every command of the project; `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
RUN ?= default
FOLD ?= 0
CARS ?= 20
TEST_CARS ?= 4
SEED ?= 1
MESSAGE ?=

# A variable that is not read is a mistyped one. Those of a make that calls this one are its own business.
KNOWN := BENCHMARKS CARS DATA DRY_RUN FILE FOLD FOLDS FORCE FULL HQ MESSAGE MINUTES NPROC PRESET PYTHON RUN RUNS SEED \
	SET SETTINGS SIZE TEST_CARS TRAINED VARIANTS VENV WEIGHTS
OF_MAKE := MAKE MAKEFLAGS MFLAGS SHELL
ifeq ($(MAKELEVEL),0)
GIVEN := $(foreach name,$(.VARIABLES),$(if $(findstring command line,$(origin $(name))),$(name)))
UNKNOWN := $(filter-out $(KNOWN) $(OF_MAKE),$(GIVEN))
$(if $(UNKNOWN),$(error unknown variable $(UNKNOWN); there are $(KNOWN)))
endif
ifneq ($(words $(RUN)),1)
$(error RUN="$(RUN)" is no name of a run, which is one word; several runs together are RUNS="a b")
endif

PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed-$(shell cksum < requirements.txt | cut -d' ' -f1)
BENCHMARKS := rle host_path loader predict scale score upload
BENCH_PY := .venv-bench/bin/python
BENCH_STAMP := .venv-bench/.installed-$(shell (cat requirements.txt requirements-bench.txt; echo $(abspath $(VENV))) | \
	cksum | cut -d' ' -f1)
# albumentations looks for a newer version of itself at every import, in vain where there is no network.
export NO_ALBUMENTATIONS_UPDATE := 1
# As it is, whatever quotes and dollars are in it.
export override MESSAGE := $(value MESSAGE)

# One word for the shell, whatever spaces and quotes are in it; a leading ~/ is still the home folder.
quoted = $(subst '~/,~/','$(subst ','\'',$(1))')
DATA_OR = --data $(call quoted,$(or $(DATA),$(1)))
DATA_IF := $(if $(DATA),--data $(call quoted,$(DATA)))
OF := --run $(call quoted,$(RUN))
RUN_IF := $(if $(filter-out default,$(RUN)),$(OF))

# Only what the user named is passed on, so that a run keeps its own settings and its own data.
OVER := $(if $(SETTINGS),--settings $(call quoted,$(SETTINGS))) \
	$(if $(SET)$(FOLDS),--set $(if $(FOLDS),split.folds=$(FOLDS)) $(foreach each,$(SET),'$(each)'))
PRESET_IF := $(if $(PRESET),--preset $(call quoted,$(PRESET)))
ASKED := $(DATA_IF) $(PRESET_IF) $(OVER)
OF_RUN := $(OF) $(ASKED)
RANKS := $(PY) -m $(if $(NPROC),folds.launch --nproc $(NPROC))
yes = $(filter-out 0 no false,$(1))
SIZED := $(if $(SIZE),--size $(SIZE))
OF_RUNS := $(if $(RUNS),--runs $(RUNS) $(RUN_IF),$(OF)) $(ASKED)
ifneq ($(and $(RUNS),$(filter folds train cv validate submit masks report,$(MAKECMDGOALS))),)
$(error RUNS is for score, predict and pseudo, which make one run of them; name that one here: RUN=a+b)
endif
ifneq ($(and $(HQ),$(filter folds train cv score predict pseudo validate submit masks report,$(MAKECMDGOALS))),)
$(error HQ is for data and check; a run learns from the hq photos by SET=data.hq=true)
endif
ifneq ($(and $(findstring command line,$(origin FOLD)),$(filter cv,$(MAKECMDGOALS))),)
$(error FOLD is for train; cv trains every fold that is not finished)
endif

.PHONY: help setup demo test lint format bench bench-setup ablation data synthetic check settings folds train cv score \
	predict pseudo validate submit submissions masks report clean-demo

help: ## this list
	@echo "make TARGET [VARIABLE=value ...]"; echo
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  %-12s %s\n", $$1, $$2}'
	@echo; echo "Variables"
	@echo '  DATA         data folder in Kaggle'"'"'s layout        (data/carvana, or the run'"'"'s own)'
	@echo '  RUN          name of the run, a folder below runs/  (default)'
	@echo '  RUNS         "a b": score or predict several runs together'
	@echo '  PRESET       demo, cpu, scratch, gpu, fullres, or a .yaml file (gpu or cpu, by the machine)'
	@echo '  FOLD, FOLDS  number of the fold, from 0; number of folds'
	@echo '  SET          "train.epochs=50 train.batch_size=16": any setting (make settings)'
	@echo '  NPROC        processes that train, score and predict together, one a GPU  (one)'
	@echo '  CARS, TEST_CARS, SIZE  of generated data (20, 4, 1918x1280)'
	@echo '  MESSAGE      what to call a submission on Kaggle'
	@echo '  VENV         where the packages are installed       (.venv)'

setup: $(STAMP) ## create .venv from requirements.txt; every other target does this first, once

# The stamp's name says which requirements it stands for, so that clones of any age may share an environment.
$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "error: Python 3.11 or newer is needed, and $(PYTHON) is" \
			"$$(command -v $(PYTHON) >/dev/null && $(PYTHON) --version 2>&1 || echo missing); install it, or name one: make PYTHON=python3.12 ..." >&2; \
		exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) || { \
		echo "error: cannot create $(VENV); on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "installing the packages of requirements.txt into $(VENV) (a few minutes, about 7 GB, once)"
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@rm -f $(VENV)/.installed-*
	@touch $@

demo: $(STAMP) ## the whole pipeline on generated cars, on a CPU: CV, a valid submission, a report
	@$(PY) -m competition.studio --data data/demo --cars $(CARS) --test-cars $(TEST_CARS) --seed $(SEED) $(SIZED)
	@$(PY) -m folds.train --all --run demo --data data/demo --preset demo $(OVER)
	@$(PY) -m inference.score --run demo
	@$(PY) -m inference.predict --run demo
	@$(PY) -m submissions.validate --run demo
	@$(PY) -m submissions.grade --run demo --solution data/demo/solution.csv
	@$(PY) -m inference.report --run demo

# A process a core, and one thread each: the networks of the tests are too small to share, and threads that wait for
# each other are slow.
test: $(STAMP) ## the tests
	@OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses auto --dist worksteal

lint: $(STAMP) ## ruff and mypy
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

format: $(STAMP) ## format the code
	@$(PY) -m ruff check --fix --quiet .
	@$(PY) -m ruff format .

# FULL=1: all 100,064 images in `scale`, killed three times, and compiled networks in `predict`. Any one alone:
# .venv-bench/bin/python -m benchmarks.NAME
bench: $(BENCH_STAMP) ## the measurements behind the README's figures (DATA, TRAINED=run, FULL=1)
	@set -e; for name in $(BENCHMARKS); do echo "== $$name"; $(BENCH_PY) -m benchmarks.$$name $(DATA_IF) \
		$$(case $$name in \
			host_path) echo $(if $(TRAINED),--run $(TRAINED));; \
			predict) echo $(if $(TRAINED),--run $(TRAINED)) $(if $(call yes,$(FULL)),--compiled);; \
			scale) echo $(if $(call yes,$(FULL)),--images 100064 --kills 3);; esac); done

bench-setup: $(BENCH_STAMP) ## the packages that are measured beside ours, into .venv-bench

# It sees the packages of VENV; pip is VENV's too, and leaves them as they are.
$(BENCH_STAMP): $(STAMP)
	@rm -rf .venv-bench
	@$(PY) -m venv --without-pip .venv-bench
	@$(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> $$($(BENCH_PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/main-environment.pth
	@$(BENCH_PY) -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-bench.txt
	@touch $@

ablation: $(STAMP) ## what each choice of a preset is worth, on cars no training has seen (MINUTES=3, VARIANTS, WEIGHTS)
	@$(PY) -m benchmarks.ablation --markdown $(RUN_IF) $(DATA_IF) $(PRESET_IF) \
		$(if $(MINUTES),--minutes $(MINUTES)) $(if $(VARIANTS),--variants $(VARIANTS)) \
		$(if $(WEIGHTS),--weights $(WEIGHTS)) $(if $(SET),--set $(foreach each,$(SET),'$(each)'))

data: $(STAMP) ## download and verify Carvana from Kaggle into DATA (HQ=1: the hq photos)
	@$(PY) -m competition.kaggle.download $(call DATA_OR,data/carvana) $(if $(call yes,$(HQ)),--hq)

synthetic: $(STAMP) ## write a Carvana-format data set of generated cars into DATA (CARS, TEST_CARS, SEED)
	@$(PY) -m competition.studio $(call DATA_OR,data/synthetic) --cars $(CARS) --test-cars $(TEST_CARS) --seed $(SEED) \
		$(SIZED)

check: $(STAMP) ## read every file in DATA and list all that is wrong
	@$(PY) -m competition.check $(call DATA_OR,data/carvana) $(if $(call yes,$(HQ)),--hq)

settings: $(STAMP) ## every setting with its default, or its value in PRESET, what it means and what it may be
	@$(PY) -m competition.settings $(PRESET_IF)

folds: $(STAMP) ## write the split of RUN
	@$(PY) -m folds.begin $(OF_RUN)

train: $(STAMP) ## train FOLD of RUN; goes on by itself where it stopped
	@$(RANKS) folds.train --fold $(FOLD) $(OF_RUN)

cv: $(STAMP) ## train every fold of RUN that is not finished, then score
	@$(RANKS) folds.train --all $(OF_RUN)
	@$(RANKS) inference.score $(OF_RUN)

score: $(STAMP) ## the offline CV of RUN, or of RUNS together
	@$(RANKS) inference.score $(OF_RUNS)

predict: $(STAMP) ## the test set by all folds and views of RUN, or RUNS, into a submission; goes on where it stopped
	@$(RANKS) inference.predict $(OF_RUNS)

pseudo: $(STAMP) ## label the test images that each fold of RUN, or RUNS, is surest of, to learn from (SET=data.pseudo=RUN)
	@$(RANKS) inference.pseudo $(OF_RUNS)

validate: $(STAMP) ## check the submission of RUN (or FILE) against the sample submission
	@$(PY) -m submissions.validate $(OF) $(DATA_IF) $(if $(FILE),--file $(call quoted,$(FILE)))

submit: $(STAMP) ## validate, push to Kaggle, follow until scored (MESSAGE; DRY_RUN=1; FORCE=1)
	@$(PY) -m submissions.submit $(OF) $(DATA_IF) $(if $(MESSAGE),--message="$$MESSAGE") \
		$(if $(call yes,$(DRY_RUN)),--dry-run) $(if $(call yes,$(FORCE)),--force)

submissions: $(STAMP) ## the ledger: every push with its CV beside Kaggle's scores
	@$(PY) -m submissions.ledger

masks: $(STAMP) ## write the masks of RUN's submission (or FILE's) as pictures
	@$(PY) -m submissions.masks $(OF) $(DATA_IF) $(if $(FILE),--file $(call quoted,$(FILE)))

report: $(STAMP) ## one HTML page of RUN
	@$(PY) -m inference.report $(OF) $(DATA_IF)

clean-demo: ## remove the demo's data and run
	rm -rf data/demo data/demo.part runs/demo
