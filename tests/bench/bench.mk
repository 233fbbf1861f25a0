# Benchmarks of parts; not in SUITES.
STORE_BENCH_OBJ := $(call obj,tests/bench/store_bench.cpp)
$(BUILD)/tests/store_bench: $(STORE_BENCH_OBJ) $(HOST_OBJ)
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CXX) $(LDFLAGS) $^ $(LIBS) -o $@

bench-store: $(BUILD)/tests/store_bench ## the result store: 1 million rows sealed, resumed, merged; time and memory
	@$< 1000000 32 $(BUILD)
.PHONY: bench-store
-include $(patsubst %.o,%.d,$(STORE_BENCH_OBJ))

# The GPU's ceilings, each operation, the whole model with dummy weights. BENCH_GPU_ARGS='--parts model --only 512/512' runs a part.
ifeq ($(CUDA),1)
$(BUILD)/tests/ceilings: tests/bench/ceilings.cu
	@mkdir -p $(@D)
	@echo "  NVCC  $@"
	@$(NVCC) $(NVCCFLAGS) $< -o $@ -lcublasLt -Xlinker -rpath=$(CUDA_HOME)/lib64
endif
bench-gpu: all $(BUILD)/tests/ceilings $(BUILD)/tests/ops_bench ## a GPU's ceilings, every operation, the whole model (dummy weights): percent of bound; text and build/bench-gpu.json
	@tests/bench/gpu --build $(BUILD) --json $(BUILD)/bench-gpu.json $(BENCH_GPU_ARGS)
.PHONY: bench-gpu
