# moerun: plain `make` builds build/moerun; `make help` lists the rest.
MAKEFLAGS += -r
SHELL := /bin/bash
.DEFAULT_GOAL := all

BUILD   := build
PREFIX  ?= /usr/local
VERSION := 0.3.0
CXX     := $(or $(MPICXX),mpicxx)
NVCC    ?= $(firstword $(shell command -v nvcc 2>/dev/null) $(wildcard /usr/local/cuda/bin/nvcc))
# CUDA=0 builds without a toolkit that is there; CUDA=1 insists on one.
CUDA    ?= $(if $(NVCC),1,0)
ifeq ($(CUDA)$(NVCC),1)
  $(error CUDA=1 was asked for and no nvcc is on PATH or in /usr/local/cuda)
endif
# As many compile jobs as cores, unless the caller's make already has a job server.
JOBS     = $(if $(findstring -j,$(MAKEFLAGS)),,-j$(shell nproc))
# Ranks beyond the cores, and root in a container, need to be asked for; MPIRUN= replaces the launcher of demo and tests.
MPIRUN  ?= mpirun --oversubscribe $(if $(filter 0,$(shell id -u)),--allow-run-as-root)
export MPIRUN

# The oldest libraries that moerun is built and tested with, by pkg-config's names and numbers; those it does not know are not looked at.
LEAST := ompi=4.1 hdf5-serial=1.10.8 hdf5=1.10.8 yaml-cpp=0.7.0 fmt=9.1.0 CLI11=2.1.2 nlohmann_json=3.11.2 libpcre2-8=10.42 libutf8proc=2.6.0 libcrypto=3.0 libxxhash=0.8.1 zlib=1.2.13
older_than_least = for one in $(LEAST); do name=$${one%=*} least=$${one\#*=}; pkg-config --exists $$name 2>/dev/null || continue; \
  pkg-config --atleast-version=$$least $$name || echo "$$name is $$(pkg-config --modversion $$name), and moerun is built and tested with $$least or later (make LEAST= goes without this check)"; done

GIT         := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
HDF5_CFLAGS := $(shell pkg-config --cflags hdf5-serial 2>/dev/null || pkg-config --cflags hdf5 2>/dev/null)
HDF5_LIBS   := $(or $(shell pkg-config --libs hdf5-serial 2>/dev/null || pkg-config --libs hdf5 2>/dev/null),-lhdf5)
LIBS        := $(HDF5_LIBS) -lyaml-cpp -lfmt -lpcre2-8 -lutf8proc -lcrypto -lxxhash -lz -lpthread -ldl
CPPFLAGS    := -DOMPI_SKIP_MPICXX -Iinclude -Isrc -I. $(HDF5_CFLAGS) -MD -MP
CXXFLAGS    ?= -O2 -g1
# Of fmt 9 and std::string, g++ 12 and 13 see bounds broken, copies overlap and overflow where none do (GCC bug 105651): warnings, no errors.
CXXFLAGS    += -std=c++20 -Wall -Wextra -Wno-missing-field-initializers -Werror -Wno-error=array-bounds -Wno-error=restrict -Wno-error=stringop-overflow -ffp-contract=off -fno-math-errno -fopenmp
LDFLAGS     += -fopenmp

# Structured output is xgrammar's, built from the sources that .ci/setup gets (.ci/xgrammar). XGRAMMAR=0 builds without.
XGRAMMAR_SRC ?= build/third_party/xgrammar-0.2.9
XGRAMMAR     ?= $(if $(wildcard $(XGRAMMAR_SRC)/LICENSE),1,0)
ifeq ($(XGRAMMAR)$(wildcard $(XGRAMMAR_SRC)/LICENSE),1)
  $(error XGRAMMAR=1 was asked for and $(XGRAMMAR_SRC) does not hold its sources: .ci/xgrammar $(dir $(XGRAMMAR_SRC)) gets them)
endif
ifeq ($(XGRAMMAR),1)
  XGRAMMAR_CC  := $(wildcard $(addprefix $(XGRAMMAR_SRC)/cpp/,*.cc support/*.cc converter_ext/*.cc))
  XGRAMMAR_LIB := $(BUILD)/third_party/libxgrammar.a
  XGRAMMAR_TERMS := $(XGRAMMAR_SRC)/LICENSE $(XGRAMMAR_SRC)/NOTICE
  XGRAMMAR_INC := -isystem $(XGRAMMAR_SRC)/include -isystem $(XGRAMMAR_SRC)/3rdparty/dlpack/include
  LIBS         := $(XGRAMMAR_LIB) $(LIBS)
endif

# Host | CUDA seam: these alone may see CUDA or NCCL headers (tests/seams/check proves it).
CUDA_SRC := $(wildcard src/device/cuda*.cpp src/device/cuda/*.cpp src/comm/nccl*.cpp src/comm/p2p*.cpp src/comm/gpu*.cpp)
KERNELS  := $(wildcard kernels/cuda/*.cu)
# What chooses the device knows whether CUDA is built in; the tests of the host's parts link without it.
MAIN_SRC := src/main.cpp src/device/factory.cpp src/comm/backends.cpp $(wildcard src/run/*.cpp)
HOST_SRC := $(filter-out $(CUDA_SRC) $(MAIN_SRC),$(wildcard src/*.cpp src/*/*.cpp src/*/*/*.cpp)) $(wildcard kernels/cpu/*.cpp)
UNIT_SRC := $(wildcard tests/unit/*.cpp)

obj      = $(patsubst %,$(BUILD)/obj/%.o,$(1))
HOST_OBJ := $(call obj,$(HOST_SRC))
CUDA_OBJ := $(call obj,$(CUDA_SRC) $(KERNELS))
MAIN_OBJ := $(call obj,$(MAIN_SRC))
UNIT_OBJ := $(call obj,$(UNIT_SRC))
# Catch2 v3 is a library; v2 is headers alone (tests/catch.h).
CATCH_LIBS := $(if $(wildcard /usr/include/catch2/catch_all.hpp),-lCatch2)

ifeq ($(CUDA),1)
  CUDA_HOME := $(patsubst %/bin/nvcc,%,$(realpath $(NVCC)))
  NVCCFLAGS ?= -O3 -lineinfo
  NVCCFLAGS += -std=c++20 -gencode=arch=compute_90a,code=sm_90a -Werror all-warnings --expt-relaxed-constexpr
  CUDA_INC  := -I$(CUDA_HOME)/include
  CUDA_LIBS := -L$(CUDA_HOME)/lib64 -lcudart_static -lcublasLt -lnccl -lrt -Wl,-rpath,$(CUDA_HOME)/lib64
  LINK_OBJ  := $(HOST_OBJ) $(CUDA_OBJ)
else
  LINK_OBJ  := $(HOST_OBJ)
endif

## Building
all: $(BUILD)/moerun          ## build build/moerun (the default)

# The configuration is a prerequisite of what depends on it: switching CUDA on or off, or another commit, rebuilds just that.
CONFIG := CUDA=$(CUDA) XGRAMMAR=$(XGRAMMAR) VERSION=$(VERSION) GIT=$(GIT) CXXFLAGS=$(CXXFLAGS)
$(BUILD)/config: FORCE
	@mkdir -p $(@D)
	@echo '$(CONFIG)' | cmp -s - $@ || { older=$$($(older_than_least)); [ -z "$$older" ] || { echo "$$older" >&2; exit 1; }; echo '$(CONFIG)' >$@; \
	  echo "moerun $(VERSION) ($(GIT)): $$($(CXX) --version | head -1); $$(mpirun --version | head -1); HDF5 $$(pkg-config --modversion hdf5-serial 2>/dev/null || pkg-config --modversion hdf5);" \
	    $(if $(filter 1,$(CUDA)),"CUDA $$($(NVCC) --version | sed -n 's/.*release \([0-9.]*\).*/\1/p') ($(NVCC))","no CUDA (CUDA=$(CUDA)): the CPU device alone"); \
	  $(if $(filter 0,$(XGRAMMAR)),echo "built without xgrammar (XGRAMMAR=0): rows that ask for structured output are refused"; )}

$(call obj,$(CUDA_SRC)): CPPFLAGS += $(CUDA_INC)
$(BUILD)/obj/kernels/cpu/%.cpp.o: CXXFLAGS += -O3
CONFIGURED := $(addprefix $(BUILD)/obj/src/,base/version.cpp.o device/factory.cpp.o comm/backends.cpp.o)
$(CONFIGURED): $(BUILD)/config
$(CONFIGURED): CPPFLAGS += -DMOERUN_CUDA=$(CUDA) -DMOERUN_VERSION='"$(VERSION)"' -DMOERUN_GIT='"$(GIT)"'
$(BUILD)/obj/src/grammar/grammar.cpp.o: $(BUILD)/third_party/xgrammar-is-$(XGRAMMAR) | $(XGRAMMAR_LIB)
$(BUILD)/obj/src/grammar/grammar.cpp.o: CPPFLAGS += -DMOERUN_XGRAMMAR=$(XGRAMMAR) $(XGRAMMAR_INC)

$(BUILD)/third_party/xgrammar-is-%:
	@mkdir -p $(@D) && rm -f $(@D)/xgrammar-is-* && touch $@

# Its own code under its own rules; what it would log goes through src/grammar.
XGRAMMAR_OBJ := $(XGRAMMAR_CC:$(XGRAMMAR_SRC)/%=$(BUILD)/third_party/obj/%.o)
$(BUILD)/third_party/obj/%.cc.o: $(XGRAMMAR_SRC)/%.cc
	@mkdir -p $(@D)
	@echo "  CXX   $<"
	@$(CXX) -std=c++17 -O2 -w -DXGRAMMAR_LOG_CUSTOMIZE=1 -DXGRAMMAR_ENABLE_CPPTRACE=0 $(XGRAMMAR_INC) \
	  -isystem $(XGRAMMAR_SRC)/3rdparty/picojson -c $< -o $@
$(BUILD)/third_party/libxgrammar.a: $(XGRAMMAR_OBJ)
	@echo "  AR    $@"
	@rm -f $@ && ar rcs $@ $^

# The headers that most sources include are parsed once. Tests are compiled as fast as can be; what they test is not.
# Catch2 names the line that failed; debug information of the tests themselves costs a fifth of their compilation (CXXFLAGS=-g has it).
PRECOMPILED ?= 1
UNOPTIMIZED := $(patsubst -g1,-g0,$(patsubst -O2,-O0,$(CXXFLAGS)))
TESTS_ALONE := $(filter-out tests/bench,$(patsubst %/,%,$(wildcard tests/*/)))
$(TESTS_ALONE:%=$(BUILD)/obj/%/%.cpp.o): CXXFLAGS := $(UNOPTIMIZED)
ifeq ($(PRECOMPILED),1)
$(BUILD)/precompiled/tests.h.gch: CXXFLAGS := $(UNOPTIMIZED)
$(BUILD)/precompiled/%.h.gch: %/precompiled.h Makefile | $(BUILD)/config
	@mkdir -p $(@D)
	@echo "  CXX   $<"
	@cp $< $(@:.gch=)
	@$(CXX) $(CPPFLAGS) $(CXXFLAGS) -c -x c++-header $< -o $@
$(BUILD)/obj/src/%.cpp.o: PRECOMPILED_HEADER := $(BUILD)/precompiled/src.h
$(BUILD)/obj/tests/unit/%.cpp.o: PRECOMPILED_HEADER := $(BUILD)/precompiled/tests.h
# Catch2 v2 makes its runner where its header is included first.
$(BUILD)/obj/tests/unit/main.cpp.o: PRECOMPILED_HEADER :=
$(HOST_OBJ) $(MAIN_OBJ) $(CUDA_OBJ): | $(BUILD)/precompiled/src.h.gch
$(UNIT_OBJ): | $(BUILD)/precompiled/tests.h.gch
endif

$(BUILD)/obj/%.cpp.o: %.cpp | $(BUILD)/config
	@mkdir -p $(@D)
	@echo "  CXX   $<"
	@$(CXX) $(CPPFLAGS) $(CXXFLAGS) $(PRECOMPILED_HEADER:%=-Winvalid-pch -include %) -c $< -o $@

$(BUILD)/obj/%.cu.o: %.cu
	@mkdir -p $(@D)
	@echo "  NVCC  $<"
	@$(NVCC) $(NVCCFLAGS) -Iinclude -Isrc -I. -MD -MP -MF $(@:.o=.d) -c $< -o $@

$(BUILD)/moerun: $(MAIN_OBJ) $(LINK_OBJ) | $(BUILD)/config
	@echo "  LINK  $@"
	@$(CXX) $(LDFLAGS) $^ $(if $(filter 1,$(CUDA)),$(CUDA_LIBS)) $(LIBS) -o $@

$(BUILD)/tests/unit: $(UNIT_OBJ) $(HOST_OBJ)
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CXX) $(LDFLAGS) $^ $(LIBS) $(CATCH_LIBS) -o $@

kernels: $(call obj,$(KERNELS)) ## compile every CUDA kernel (needs a toolkit, no GPU)

## Running
demo:                         ## set up, build, and answer 64 prompts on four ranks of this machine's CPUs
	@.ci/setup
	@$(MAKE) $(JOBS) --no-print-directory all
	@mkdir -p out
	OMP_NUM_THREADS=1 $(MPIRUN) -n 4 $(BUILD)/moerun jobs/demo.yaml

## Testing
# Fragments tests/*/*.mk add their suite's name to SUITES, its packages to PACKAGES, and a target test-NAME that runs tests/run-suite.
SUITES   := unit
PACKAGES := packages
-include $(sort $(wildcard tests/*/*.mk))

# Three suites at a time, since most wait half of their time, and the longest first; what one says is shown when it is over.
LONGEST := golden lm-eval-quick
test:                         ## set up, build, run every suite, and end with `N passed, M failed`
	@.ci/setup $(PACKAGES)
	@rm -rf $(BUILD)/test-results
	@$(MAKE) $(JOBS) --no-print-directory all $(BUILD)/tests/unit
	@MAKEFLAGS="$(filter-out -j% --jobserver%,$(MAKEFLAGS))" $(MAKE) -k -j3 -O --no-print-directory $(patsubst %,test-%,$(LONGEST) $(filter-out $(LONGEST),$(SUITES))) || true
	@$(MAKE) --no-print-directory test-seams || true
	@tests/run-suite --total

test-unit: $(BUILD)/tests/unit ## the unit tests (no MPI launch, no CUDA library)
	@tests/run-suite unit $<

test-seams: all $(BUILD)/tests/unit ## the seams, from dependency files and object symbols
	@tests/run-suite seams tests/seams/check $(BUILD)

LINTED := $(shell git ls-files 'src/*.cpp' 'src/*.h' 'include/*.h' 'kernels/*.cpp' 'kernels/*.h' 'kernels/*.cu' 'kernels/*.cuh' 'tests/*.cpp' 'tests/*.h' 'tests/*.cu')
TIDIED := $(HOST_SRC) $(MAIN_SRC)

lint:                         ## clang-format, clang-tidy and the seam checks
	@.ci/setup packages packages-lint
	@clang-format --dry-run -Werror $(LINTED)
	@$(MAKE) --no-print-directory $(BUILD)/tidied
	@$(MAKE) $(JOBS) --no-print-directory test-seams

format:                       ## let clang-format rewrite the sources
	@clang-format -i $(LINTED)

$(BUILD)/tidied: $(LINTED) .clang-tidy tests/lint/tidy
	@mkdir -p $(@D)
	@$(MAKE) --no-print-directory tidy
	@touch $@

tidy:                         ## clang-tidy (TIDIED="src/main.cpp src/base/version.cpp": these alone; DEEP=1: the analyzer to every function's end, an hour)
	@tests/lint/tidy --jobs $(shell nproc) $(if $(DEEP),--deep) $(TIDIED) -- -std=c++20 $(filter-out -MD -MP,$(CPPFLAGS)) $(shell mpicxx --showme:compile 2>/dev/null) -DMOERUN_CUDA=$(CUDA) -DMOERUN_VERSION='""' -DMOERUN_GIT='""' -DMOERUN_XGRAMMAR=$(XGRAMMAR) $(XGRAMMAR_INC)

## Packaging
# Made from the key list, as `moerun help keys` is.
$(BUILD)/moerun.1: $(BUILD)/moerun
	@$< help man >$@.tmp && mv $@.tmp $@

install: all $(BUILD)/moerun.1 ## copy the program and its manual page to PREFIX (PREFIX=/usr/local)
	install -D -m 755 $(BUILD)/moerun $(DESTDIR)$(PREFIX)/bin/moerun
	install -D -m 644 $(BUILD)/moerun.1 $(DESTDIR)$(PREFIX)/share/man/man1/moerun.1
	@for file in $(XGRAMMAR_TERMS); do install -D -m 644 $$file $(DESTDIR)$(PREFIX)/share/doc/moerun/xgrammar/$${file##*/}; done

# Libraries of libc, MPI, the driver and (unless BUNDLE_CUDA=1) the CUDA toolkit belong to the machine it runs on, with what they need.
BUNDLE_SKIP := ^(ld-linux[^.]*|libc|libm|libdl|librt|libpthread|libresolv|libmpi[^.]*|libopen-[^.]*|libcuda|libnvidia[^.]*$(if $(BUNDLE_CUDA),,|libcublas[^.]*|libnccl))\.so
# Beside the program: what jobs/eight-gpus.sh measures with, on nodes that build nothing.
BUNDLE_HELPERS := $(BUILD)/tests/exchange_bench $(if $(filter 1,$(CUDA)),$(BUILD)/tests/ceilings)
BUNDLE_FILES   := jobs data/tiny-moe data/qwen3-30b-a3b data/prompts.jsonl tests/golden/tiny-moe tests/gpu/golden tests/bench/gpu tests/bench/eight_gpus
RELOCATABLE    := -Wl,-rpath,'$$ORIGIN/../lib' -Wl,--disable-new-dtags -s
bundle: all $(BUNDLE_HELPERS) ## build/bundle: programs, job files and the libraries beyond libc and MPI that they need, relocatable
	@rm -rf $(BUILD)/bundle && mkdir -p $(BUILD)/bundle/bin $(BUILD)/bundle/lib
	@cp $(BUNDLE_HELPERS) $(BUILD)/bundle/bin/
	@cp -r --parents $(BUNDLE_FILES) $(BUILD)/bundle/
	@for file in $(XGRAMMAR_TERMS); do install -D -m 644 $$file $(BUILD)/bundle/licenses/xgrammar/$${file##*/}; done
	@libraries() { ldd $$1 | awk '$$3 ~ /^\// {print $$1, $$3}' | grep -vE '$(BUNDLE_SKIP)'; }; \
	needed=$$(readelf -d $(BUILD)/moerun | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'); \
	libraries $(BUILD)/moerun | grep -wF "$$needed" | while read -r name path; do echo "$$name $$path"; libraries $$path; done | sort -u | \
	  while read -r name path; do cp -L "$$path" $(BUILD)/bundle/lib/"$$name"; done
	@$(CXX) $(LDFLAGS) $(MAIN_OBJ) $(LINK_OBJ) $(if $(filter 1,$(CUDA)),$(CUDA_LIBS)) $(LIBS) $(RELOCATABLE) -o $(BUILD)/bundle/bin/moerun
	@$(CXX) $(LDFLAGS) $(EXCHANGE_BENCH_ALL) $(if $(filter 1,$(CUDA)),$(CUDA_LIBS)) $(LIBS) $(RELOCATABLE) -o $(BUILD)/bundle/bin/exchange_bench
	@du -sh $(BUILD)/bundle

clean:                        ## remove build/
	rm -rf $(BUILD)

help:                         ## this list
	@awk -F ':.*## ' 'FILENAME ~ /^tests/ && !fragment++ {print "\nSuites and benchmarks"} /^## /{print "\n" substr($$0,4)} /^[a-z_-]+:.*## /{sub(/:.*/,"",$$1); printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

FORCE:
.PHONY: all kernels demo test test-unit test-seams lint format tidy install bundle clean help FORCE
-include $(patsubst %.o,%.d,$(HOST_OBJ) $(CUDA_OBJ) $(MAIN_OBJ) $(UNIT_OBJ))
