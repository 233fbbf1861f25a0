# Communicators, collectives and the expert exchange over MPI, with 1, 2, 4 and 8 ranks and without a launcher.
SUITES += mpi
MPI_TEST_OBJ := $(call obj,$(wildcard tests/mpi/*.cpp))
$(BUILD)/tests/mpi: $(MPI_TEST_OBJ) $(HOST_OBJ)
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CXX) $(LDFLAGS) $^ $(LIBS) -o $@

test-mpi: $(BUILD)/tests/mpi ## collectives and expert exchange over MPI, 1 to 8 ranks
	@tests/run-suite mpi tests/mpi/run $<
.PHONY: test-mpi
-include $(patsubst %.o,%.d,$(MPI_TEST_OBJ))
