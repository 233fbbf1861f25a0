# The program and its unit tests under gcc's sanitizers: builds of their own under build/. Not a part of `make test`: they take minutes.
SANITIZE := tests/sanitize/run
ASAN     := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
TSAN     := -fsanitize=thread

test-sanitize: test-asan test-tsan ## the demo, the null device and the unit tests under address, undefined-behaviour and thread sanitizers

test-asan:                    ## those under address and undefined-behaviour sanitizers
	@.ci/setup
	@CXXFLAGS="-O1 -g $(ASAN)" LDFLAGS="$(ASAN)" $(MAKE) $(JOBS) --no-print-directory BUILD=build/asan CUDA=0 build/asan/moerun build/asan/tests/unit
	@tests/run-suite asan $(SANITIZE) asan build/asan

test-tsan:                    ## and under the thread sanitizer
	@.ci/setup
	@CXXFLAGS="-O1 -g $(TSAN)" LDFLAGS="$(TSAN)" $(MAKE) $(JOBS) --no-print-directory BUILD=build/tsan CUDA=0 build/tsan/moerun build/tsan/tests/unit
	@tests/run-suite tsan $(SANITIZE) tsan build/tsan
.PHONY: test-sanitize test-asan test-tsan
