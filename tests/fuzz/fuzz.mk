# Readers are given what nobody would write: the corpus in `make test`, new inputs from libFuzzer in `make fuzz`.
SUITES += fuzz-corpus
FUZZ_SRC    := $(wildcard tests/fuzz/*.cpp)
FUZZ_OBJ    := $(call obj,$(FUZZ_SRC))
REPLAY_OBJ  := $(filter-out %/libfuzzer.cpp.o,$(FUZZ_OBJ))
FUZZER_OBJ  := $(filter-out %/replay.cpp.o,$(FUZZ_OBJ))

$(BUILD)/tests/fuzz_replay: $(REPLAY_OBJ) $(HOST_OBJ)
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CXX) $(LDFLAGS) $^ $(LIBS) -o $@

$(BUILD)/fuzzers: $(FUZZER_OBJ) $(HOST_OBJ)
	@echo "  LINK  $@"
	@$(CXX) $(LDFLAGS) -fsanitize=fuzzer $^ $(LIBS) -o $@

test-fuzz-corpus: $(BUILD)/tests/fuzz_replay ## each input of tests/fuzz/corpus once through its reader
	@tests/run-suite fuzz-corpus $< tests/fuzz/corpus

# A build of its own, by clang, with the address and undefined-behaviour sanitizers: of the fuzzers, and of what tests/sanitize runs.
CLANG    ?= clang++
FUZZ_OPT ?= -O1
ASAN     := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
asan      = @+.ci/setup packages packages-fuzz && OMPI_CXX="$(CLANG)" MPICH_CXX="$(CLANG)" CXXFLAGS="$(FUZZ_OPT) -gline-tables-only -Wno-unknown-warning-option -Wno-pass-failed -fsanitize=fuzzer-no-link $(ASAN)" LDFLAGS="$(ASAN)" \
            $(MAKE) $(JOBS) --no-print-directory BUILD=build/asan CUDA=0
fuzzers:
	$(asan) build/asan/fuzzers

fuzz: fuzzers                 ## ten minutes of each fuzzer (FUZZ_SECONDS=600, FUZZ="rows job": these alone); needs clang
	@tests/run-suite fuzz tests/fuzz/run build/asan/fuzzers $(or $(FUZZ_SECONDS),600) $(FUZZ)

test-fuzz: fuzzers            ## one minute of each
	@tests/run-suite fuzz tests/fuzz/run build/asan/fuzzers $(or $(FUZZ_SECONDS),60) $(FUZZ)
.PHONY: fuzz fuzzers test-fuzz test-fuzz-corpus
-include $(FUZZ_OBJ:.o=.d)
