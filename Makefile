.DEFAULT_GOAL := help
.PHONY: help demo test check bench uv

# `uv` from PATH, else as a module: pip may put its script where PATH does not look.
UV = $$(command -v uv || echo python -m uv)

help: ## Show this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: uv ## Watch a real DSPy program think, on a model inside this process
	@test -d .venv || echo "Setting up, once ..."
	@$(UV) run --quiet streamll demo

test: uv ## Run every test, with branch coverage
	@$(UV) run --quiet pytest --cov --cov-report=term:skip-covered

check: uv ## Lint and types, strict
	@$(UV) run --quiet ruff check
	@$(UV) run --quiet ruff format --check
	@$(UV) run --quiet basedpyright

bench: uv ## Measure side by side with peers; prints ratios
	@for script in benchmarks/*.py; do $(UV) run --quiet --with-requirements benchmarks/peers.txt python $$script || exit 1; done

uv:
	@command -v uv >/dev/null || python -m uv --version >/dev/null 2>&1 || python -m pip install --quiet uv
