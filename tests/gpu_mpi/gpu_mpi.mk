# The GPU exchanges and collectives between ranks, on as many GPUs as there are. Not in SUITES: it needs one.
GPU_MPI_OBJ := $(call obj,$(wildcard tests/gpu_mpi/*.cpp))
$(GPU_MPI_OBJ): CPPFLAGS += $(CUDA_INC)
$(BUILD)/tests/gpu_mpi: $(GPU_MPI_OBJ) $(HOST_OBJ) $(CUDA_OBJ)
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CXX) $(LDFLAGS) $^ $(CUDA_LIBS) $(LIBS) -o $@

test-gpu-mpi: $(BUILD)/tests/gpu_mpi ## the exchanges between ranks, over MPI, CUDA IPC and NCCL, on this machine's GPUs
	@tests/run-suite gpu-mpi tests/gpu_mpi/run $<
.PHONY: test-gpu-mpi
-include $(patsubst %.o,%.d,$(GPU_MPI_OBJ))
