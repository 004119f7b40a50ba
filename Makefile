# The commands of the project. `make help` lists them with the variables below; `make -n TARGET` shows what runs.
#
##  DATA          data folder in Kaggle's layout       (data/carvana, or the run's own)
##  RUN           name of the run, a folder in runs/   (default)
##  RUNS          "a b": score or predict several runs together
##  PRESET        demo, cpu, overnight, scratch, gpu, fullres, or a .yaml file  (gpu or cpu, by the machine)
##  SETTINGS      a .yaml file of settings; they override the preset
##  SET           "train.epochs=50 train.batch_size=16": settings that override both (make settings)
##  FOLD, FOLDS   number of the fold to train or export, from 0  (0); number of folds  (5)
##  HOURS         11: end, and save, after this time; the same command resumes  (no limit)
##  NPROC         processes that train, score or predict together, one per GPU  (one)
##  DEVICE        cpu, cuda, cuda:1 for the second GPU, or mps  (the NVIDIA GPU, if there is one)
##  FILE          submission to validate, or to write as masks; packed run; exported model  (the run's)
##  FORMAT        png or coco: how `make masks` writes masks  (png)
##  STATE         1: pack what a training or prediction resumes from, too
##  PHOTOS        photo, folder of photos or glob pattern to cut out; several are possible
##  TYPE          rgba, mask, soft, overlay, white or another colour; several are possible  (rgba)
##  OUT           folder for cut-outs  (runs/<RUN>/cutouts; cutouts without a run); CROP=1 cuts them to the object
##  STEPS         "speed predict": steps of `make gpu-check`, which writes to OUT; REHEARSE=1 runs them on the CPU  (all)
##  MODEL         .onnx file that cuts out, instead of RUN; torch is not needed
##  MESSAGE       description of the submission on Kaggle
##  FROM          folder with Kaggle's zip files, or what is in them: `make data` takes the data from there
##  ONLY          train: `make data` leaves out the test photos
##  IMAGES, MASKS, TEST  folders of photos, their masks and photos to predict, for `make adopt`
##  SHEET         PNG that `make check` writes: photos with the outlines of their masks; ALL=1 lists every problem
##  CARS, TEST_CARS, SEED, SIZE  of the generated data  (20, 4, 1, 1918x1280)
##  SYSTEM        1: use the packages of PYTHON, not those of VENV  (a notebook)
##  VENV          environment with the packages        (.venv)
##  PIP_OPTIONS   options of pip install, for `make setup`

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BENCHMARKS := rle mask_edges foreground host_path loader checkpoint predict scale score tuned upload openmp engines cutouts compiled_training
# albumentations looks for updates at every import, which takes long without a network.
export NO_ALBUMENTATIONS_UPDATE := 1
# HOURS count from here for all commands of a target; a notebook sets this variable for all of its cells.
ifndef CARVANA_STARTED
export CARVANA_STARTED := $(shell date +%s)
endif

TARGETS := help setup demo test lint format bench bench-setup gpu-check ablation studio-weights data synthetic adopt check settings folds train cv \
	score predict pseudo cutout validate submit submissions masks report pack unpack export clean-demo
.PHONY: $(TARGETS)

# The variables of each target. Others are ignored in the environment and are errors in the command line.
takes = $(foreach target,$(1),$(eval takes_$(target) += $(2)))
$(call takes,folds train cv score predict pseudo,RUN DATA PRESET SETTINGS SET FOLDS)
# A recipe finds DEVICE in its environment.
$(call takes,folds train cv score predict pseudo,DEVICE)
$(call takes,train cv score predict pseudo,NPROC HOURS)
$(call takes,score predict pseudo,RUNS)
$(call takes,train,FOLD)
$(call takes,cutout,PHOTOS RUN FOLD SET TYPE OUT CROP MODEL DEVICE)
$(call takes,validate masks submit report,RUN DATA)
$(call takes,validate masks,FILE)
$(call takes,masks,FORMAT)
$(call takes,pack unpack,RUN FILE)
$(call takes,pack,STATE)
$(call takes,export,RUN FOLD FILE SET)
$(call takes,submit,MESSAGE DRY_RUN FORCE)
$(call takes,data adopt check synthetic bench gpu-check,DATA)
$(call takes,data,FROM ONLY)
$(call takes,data check,HQ)
$(call takes,adopt check,SET)
$(call takes,adopt,IMAGES MASKS TEST)
$(call takes,check,ALL SHEET)
$(call takes,synthetic demo,CARS TEST_CARS SEED SIZE)
$(call takes,demo,SETTINGS SET FOLDS)
$(call takes,settings,PRESET)
$(call takes,ablation,RUN DATA PRESET SET MINUTES VARIANTS WEIGHTS)
$(call takes,studio-weights,DATA HOURS WEIGHTS)
$(call takes,bench,TRAINED FULL BENCHMARKS)
$(call takes,gpu-check,STEPS OUT SET REHEARSE)
$(call takes,$(filter-out help setup test lint format bench bench-setup clean-demo,$(TARGETS)),SYSTEM)
advice_HQ := ; a run learns from the hq photos by SET=data.hq=true
advice_RUNS := ; RUNS is for score, predict and pseudo, which make one run of them; name that one here: RUN=a+b
advice_FOLD := ; FOLD is for train, and cv trains every fold that is not finished

GOALS := $(or $(MAKECMDGOALS),help)
TAKEN := $(sort PIP_OPTIONS PYTHON VENV $(foreach goal,$(GOALS),$(takes_$(goal))))
GIVEN := $(foreach name,$(.VARIABLES),$(if $(findstring command line,$(origin $(name))),$(name)))
# In a make that another make has called, variables may belong to the caller. An unknown target is another error.
ifeq ($(MAKELEVEL)$(filter-out $(TARGETS),$(GOALS)),0)
$(foreach name,$(filter-out $(TAKEN) MAKE MAKEFLAGS MFLAGS SHELL,$(GIVEN)),\
	$(error make $(GOALS) takes no variable $(name), only $(TAKEN)$(advice_$(name))))
endif
ifneq ($(and $(filter RUN,$(TAKEN)),$(filter-out undefined,$(origin RUN)),$(filter-out 1,$(words $(RUN)))),)
$(error RUN="$(RUN)" must be the name of one run, without spaces; for several runs use RUNS="a b")
endif

# The variables that a target takes become options of its command, quoted for the shell.
quoted = $(subst '~/,'$(HOME)/,'$(subst ','\'',$(1))')
taken = $(if $(filter $(1),$(takes_$@)),$(value $(1)))
# Hints, such as "next: make predict RUN=x", repeat how make was called.
export CARVANA_MAKE := make$(foreach name,SYSTEM VENV PYTHON,$(if $(findstring command line,$(origin $(name))), \
	$(name)=$(call quoted,$(value $(name)))))
text = $(if $(call taken,$(1)),$(2)=$(call quoted,$(value $(1))))
list = $(if $(call taken,$(1)),$(2) $(foreach word,$(value $(1)),$(call quoted,$(word))))
switch = $(if $(filter-out 0 no false,$(call taken,$(1))),$(2))
STUDIO = $(call text,CARS,--cars) $(call text,TEST_CARS,--test-cars) $(call text,SEED,--seed) $(call text,SIZE,--size)
SETTING = $(call text,SETTINGS,--settings) $(call text,FOLDS,--set split.folds) $(call list,SET,--set)
OPTIONS = $(call text,RUN,--run) $(call list,RUNS,--runs) $(call text,DATA,--data) $(call text,PRESET,--preset) \
	$(SETTING) $(call text,FOLD,--fold) $(call text,FILE,--file) $(call text,MESSAGE,--message) $(call switch,HQ,--hq) \
	$(call text,FROM,--from) $(call text,ONLY,--only) $(call text,FORMAT,--format) \
	$(call switch,DRY_RUN,--dry-run) $(call switch,FORCE,--force) $(call switch,STATE,--state) \
	$(call text,IMAGES,--images) $(call text,MASKS,--masks) $(call text,TEST,--test) $(call text,SHEET,--sheet) \
	$(call switch,ALL,--all) $(call text,HOURS,--hours) $(call text,MINUTES,--minutes) \
	$(call list,TYPE,--type) $(call text,OUT,--out) $(call switch,CROP,--crop) $(call text,MODEL,--model) \
	$(call list,VARIANTS,--variants) $(call list,WEIGHTS,--weights) $(STUDIO) \
	$(call list,STEPS,--steps) $(call switch,REHEARSE,--rehearse)

PY = $(if $(call switch,SYSTEM,1),$(PYTHON),$(VENV)/bin/python)
RANKS = $(PY) -m $(if $(NPROC),folds.launch --nproc $(NPROC))
BENCH_PY := .venv-bench/bin/python
# The name of a stamp holds a hash of what is installed, so that clones of different age can share an environment.
STAMP := $(VENV)/.installed-$(firstword $(shell cksum < requirements.txt))
ONNX_STAMP := $(VENV)/.installed-onnx-$(firstword $(shell cat requirements.txt requirements-onnx.txt | cksum))
BENCH_STAMP := .venv-bench/.installed-$(firstword $(shell (cat requirements.txt requirements-bench.txt; \
	echo $(abspath $(VENV))) | cksum))

# What these targets print is all they do: they succeed too if its reader, such as `| head`, has read enough (SIGPIPE).
help settings folds submissions: LISTED = || [ $$? -eq 141 ]

help: ## this list
	@(echo "make TARGET [VARIABLE=value ...]"; echo; \
		sed -nE 's/^([a-z-]+):.*## /\1\t/p' Makefile | awk -F'\t' '{printf "  %-12s %s\n", $$1, $$2}'; \
		echo; echo "Variables"; sed -n 's/^##//p' Makefile) $(LISTED)

setup: $(STAMP) ## install requirements.txt into .venv; every other target does this first, once

# An exported model needs few of the packages.
WITH_TORCH := $(or $(filter-out cutout,$(GOALS)),$(if $(MODEL),,yes))
# What a target of the pipeline needs first: the packages in VENV, or a look at those of PYTHON.
READY := $(if $(filter-out 0 no false,$(SYSTEM)),.packages,$(if $(WITH_TORCH)$(wildcard $(STAMP)),$(STAMP),$(ONNX_STAMP)))
REQUIRE_PYTHON = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo \
	"error: Python 3.11 or newer is needed, and $(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo missing);" \
	"install it, or name one: make PYTHON=python3.12 ..." >&2; exit 1; }

.PHONY: .packages
.packages:
	@$(REQUIRE_PYTHON)
	@$(PYTHON) -m competition.packages$(if $(WITH_TORCH),, --without-torch)

$(STAMP): wanted := requirements.txt
$(STAMP): cost := a few minutes, up to 7 GB
$(ONNX_STAMP): wanted := requirements-onnx.txt
$(ONNX_STAMP): cost := about 0.4 GB
$(STAMP) $(ONNX_STAMP):
	@$(REQUIRE_PYTHON)
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) || { \
		echo "error: cannot create $(VENV); on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "installing the packages of $(wanted) into $(VENV) ($(cost), once)"
	@$(PY) -m pip install --quiet --disable-pip-version-check $(value PIP_OPTIONS) -r $(wanted)
	@rm -f $(VENV)/.installed-*
	@touch $@

demo: $(READY) ## the whole pipeline on generated cars, on a CPU: CV, a valid submission, a report
	@$(PY) -m competition.studio --data data/demo --size 959x640 $(STUDIO)
	@$(PY) -m inference.cv --run demo --data data/demo --preset demo $(SETTING)
	@$(PY) -m inference.predict --run demo
	@$(PY) -m submissions.validate --run demo
	@$(PY) -m submissions.grade --run demo --solution data/demo/solution.csv
	@$(PY) -m inference.report --run demo

# One process per core and one more, because tests wait for servers and other processes. Each has one thread: threads
# that wait for each other slow the tests' small networks down.
# Tests start many commands; they are faster if the first one keeps the bytecode, also where Python is told not to.
test: $(STAMP) ## the tests
	@PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses $$(($$(nproc 2>/dev/null || echo 2) + 1)) --dist worksteal

lint: $(STAMP) ## ruff and mypy
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

format: $(STAMP) ## format the code
	@$(PY) -m ruff check --fix --quiet .
	@$(PY) -m ruff format .

# FULL=1: `scale` predicts all 100,064 images and is killed three times; `predict` and `engines` measure compiled networks too.
bench: $(BENCH_STAMP) ## the measurements behind the published figures (DATA, TRAINED=run, FULL=1)
	@set -e; for name in $(BENCHMARKS); do echo "== $$name"; $(BENCH_PY) -m benchmarks.$$name $(call text,DATA,--data) \
		$$(case $$name in \
			foreground|host_path) echo $(call text,TRAINED,--run);; \
			predict) echo $(call text,TRAINED,--run) $(call switch,FULL,--compiled);; \
			engines) echo $(call switch,FULL,--compiled);; \
			scale) echo $(call switch,FULL,--images 100064 --kills 3);; esac); done

bench-setup: $(BENCH_STAMP) ## install the packages that are measured beside ours, into .venv-bench

# This environment sees the packages of VENV through a .pth file, and uses VENV's pip.
$(BENCH_STAMP): $(STAMP)
	@rm -rf .venv-bench
	@$(PY) -m venv --without-pip .venv-bench
	@$(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> $$($(BENCH_PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/main-environment.pth
	@$(BENCH_PY) -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-bench.txt
	@touch $@

# Most targets run one module with the variables as its options.
data: MODULE = competition.kaggle.download ## download and verify Carvana into DATA (HQ=1: the hq photos; FROM, ONLY)
synthetic: MODULE = competition.studio ## write generated cars in Carvana's format into DATA (CARS, TEST_CARS, SEED, SIZE)
adopt: MODULE = competition.adopt ## make DATA from photos in IMAGES and masks in MASKS with other names or values (TEST)
check: MODULE = competition.check ## read every file in DATA, list every problem, sum up what is there (SHEET, ALL=1)
settings: MODULE = competition.settings ## every setting: default or value in PRESET, meaning, allowed values
folds: MODULE = folds.begin ## divide the training cars of RUN into folds

train: $(READY) ## train FOLD of RUN; resumes
	@$(RANKS) folds.train $(if $(FOLD),,--fold 0) $(OPTIONS)

cv: $(READY) ## train every unfinished fold of RUN, then score
	@$(RANKS) inference.cv $(OPTIONS)

score: ## the cross-validation score of RUN, or of RUNS together
predict: ## predict the test set with all folds of RUN, or of RUNS, and write the submission; resumes
pseudo: ## write pseudo-labels: the test images where each fold is most certain (train with SET=data.pseudo=RUN)
score predict pseudo: $(READY)
	@$(RANKS) inference.$@ $(OPTIONS)

cutout: $(READY) ## cut the objects out of PHOTOS with the studio weights, or with RUN or MODEL (TYPE, OUT, CROP=1); resumes
	@$(PY) -m inference.cutout$(if $(MODEL),_onnx) $(if $(PHOTOS),$(call quoted,$(value PHOTOS))) $(OPTIONS)

validate: MODULE = submissions.validate ## check the submission of RUN, or FILE, against the sample submission
submit: MODULE = submissions.submit ## validate, upload to Kaggle and wait for the score (MESSAGE, DRY_RUN=1, FORCE=1)
submissions: MODULE = submissions.ledger ## the ledger: every submission with its CV and Kaggle's scores
masks: MODULE = submissions.masks ## write the masks of RUN's submission, or of FILE, as PNG files or for COCO (FORMAT)
report: MODULE = inference.report ## one HTML page about RUN
pack: MODULE = competition.run.pack ## write RUN as one zip file with a model card (STATE=1: to resume elsewhere)
unpack: MODULE = competition.run.unpack ## make a run of FILE, a packed run
export: MODULE = inference.export ## write the trained folds of RUN, or FOLD, as one ONNX model
ablation: MODULE = benchmarks.ablation --markdown ## train variants of a preset alike, compare (MINUTES, VARIANTS, WEIGHTS)
studio-weights: MODULE = benchmarks.studio_weights ## train the shipped weights on generated cars (DATA to score, WEIGHTS); resumes
gpu-check: MODULE = benchmarks.gpu_check ## try every part on this machine's GPU, time it, find which batch fits (STEPS)
data synthetic adopt check settings folds validate submit submissions masks report pack unpack export ablation studio-weights gpu-check: $(READY)
	@$(PY) -m $(MODULE) $(OPTIONS) $(LISTED)

clean-demo: ## remove the demo's data and run
	rm -rf data/demo data/demo.part runs/demo
