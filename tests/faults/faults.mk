# The real program is killed, stopped and robbed of its disk, again and again, until it has finished.
SUITES   += faults-short
PACKAGES += packages-golden
FAULTS := tests/faults/run $(BUILD)/moerun $(if $(SEED),--seed $(SEED))

# Preloaded into a job: its calls that change files fail.
FAULTY_CALLS := $(BUILD)/tests/faulty_calls.so
$(FAULTY_CALLS): tests/faults/faulty_calls.cpp
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(or $(OMPI_CXX),g++) -std=c++20 -O1 -Wall -Wextra -Werror -shared -fPIC $< -o $@ -ldl

test-faults: all $(FAULTY_CALLS) ## KILLS=200 kills at random moments (SEED=), each followed by the same command; STOP and KILL of each rank; bad disks
	@tests/run-suite faults $(FAULTS) --long --kills $(or $(KILLS),200) --calls 8

test-faults-all: all $(FAULTY_CALLS) ## every call that changes a file fails in each way, at each stage of a job: about an hour
	@tests/run-suite faults-all $(FAULTS) --kills 0 --calls 0 --only 'a call that fails'

test-faults-short: all $(FAULTY_CALLS) ## eight kills, and some of each of the others
	@tests/run-suite faults-short $(FAULTS) --kills 8
.PHONY: test-faults test-faults-all test-faults-short
