# The program and its unit tests under sanitizers: builds of their own under build/. Not a part of `make test`: they take minutes.
SANITIZE := tests/sanitize/run
TSAN     := -fsanitize=thread

test-sanitize: test-asan test-tsan ## jobs, the null device and the unit tests under address, undefined-behaviour and thread sanitizers

test-asan:                    ## those under address and undefined-behaviour sanitizers (clang)
	$(asan) build/asan/moerun build/asan/tests/unit
	@tests/run-suite asan $(SANITIZE) asan build/asan

# gcc's own OpenMP: clang's reports itself.
test-tsan:                    ## jobs, the null device and the watchdog under the thread sanitizer
	@.ci/setup
	@CXXFLAGS="-O1 -g1 $(TSAN)" LDFLAGS="$(TSAN)" $(MAKE) $(JOBS) --no-print-directory BUILD=build/tsan CUDA=0 build/tsan/moerun build/tsan/tests/watchdog
	@tests/run-suite tsan $(SANITIZE) tsan build/tsan
.PHONY: test-sanitize test-asan test-tsan
