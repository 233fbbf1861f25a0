# The operations on the GPU against their CPU twins. Not in SUITES: `make test` runs where there is no GPU.
GPU_OBJ   := $(call obj,$(wildcard tests/gpu/*.cpp))
BENCH_OBJ := $(call obj,tests/bench/ops_bench.cpp)
$(GPU_OBJ) $(BENCH_OBJ): CPPFLAGS += $(CUDA_INC)
$(BUILD)/tests/gpu: $(GPU_OBJ) $(call obj,tests/unit/main.cpp) $(HOST_OBJ) $(CUDA_OBJ)
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CXX) $(LDFLAGS) $^ $(CUDA_LIBS) $(LIBS) $(CATCH_LIBS) -o $@

$(BUILD)/tests/ops_bench: $(BENCH_OBJ) $(HOST_OBJ) $(CUDA_OBJ)
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CXX) $(LDFLAGS) $^ $(CUDA_LIBS) $(LIBS) -o $@

test-gpu: $(BUILD)/tests/gpu ## every operation on this machine's GPU against its CPU twin (needs a Hopper GPU)
	@tests/run-suite gpu $<

test-gpu-oracle: all ## a random model of 4 layers, shaped as Qwen3-30B-A3B's, against transformers on this machine's GPU (needs torch, transformers, h5py)
	@tests/run-suite gpu-oracle python3 tests/gpu/oracle.py $(BUILD)/moerun $(BUILD)/oracle

bench-ops: $(BUILD)/tests/ops_bench ## every operation's time on this machine's GPU, and its percent of the bound
	@$<
.PHONY: test-gpu test-gpu-oracle bench-ops
-include $(patsubst %.o,%.d,$(GPU_OBJ) $(BENCH_OBJ))
