# make demo          learn from the photographs in installed packages, enlarge one: demo/result.png (STEPS=200 is shorter)
# make lab           read and run the notebooks in JupyterLab
# make test          every test but the browser's, in random order, on up to four cores
# make quick         those of them that take a moment each, for the change at hand
# make browser-test  every notebook opened in JupyterLab in a real browser, those that move run (needs Chromium and its driver)
# make export        write the modules from the notebooks, clean the notebooks
# make notebooks     run all notebooks in order, keep their outputs, say which text outputs changed
# The first of them makes .venv, and each brings it up to date when what it is made from has changed.
.PHONY: help demo lab test quick browser-test export notebooks

VENV ?= .venv
$(if $(word 2,$(VENV)),$(error VENV may have no spaces: $(VENV)))
export PATH := $(abspath $(VENV))/bin:$(PATH)
export PYTHON

help:
	@sed -n '/^# /s/^# //p' Makefile

demo: $(VENV)/installed
	@python -m srgan_nb.demo $(if $(STEPS),--steps $(STEPS)) --out demo

lab: $(VENV)/installed  # by the settings in .ci/jupyter: nothing is saved unasked, long lines of code are wrapped
	@JUPYTER_CONFIG_PATH="$(abspath .ci/jupyter)" jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) nbs/index.ipynb

on_all_cores = --numprocesses logical --maxprocesses 4 --dist worksteal

test: $(VENV)/installed
	@python -m pytest $(on_all_cores) -m "not browser"

quick: $(VENV)/installed
	@python -m pytest $(on_all_cores) -m "not browser and not slow"

browser-test: $(VENV)/installed
	@python -m pytest -p no:randomly -m "browser and not slow"

export: $(VENV)/installed
	@nbdev_export
	@nbdev_clean --fname nbs

notebooks: $(VENV)/installed
	@python -m tests.support.run_notebooks

ifneq ($(shell head -n 1 $(VENV)/installed 2>/dev/null),$(CURDIR))  # made elsewhere, or not at all
.PHONY: $(VENV)/installed
endif
$(VENV)/installed: settings.ini setup.py pyproject.toml
	@.ci/venv $(VENV)
