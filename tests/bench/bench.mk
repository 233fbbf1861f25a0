# Benchmarks; none is in SUITES. BENCH_ARGS='--parts cpu' runs a part.
HOST_BENCHES   := store_bench tokenizer_bench rows_bench
HOST_BENCH_OBJ := $(call obj,$(HOST_BENCHES:%=tests/bench/%.cpp))
$(HOST_BENCHES:%=$(BUILD)/tests/%): $(BUILD)/tests/%: $(BUILD)/obj/tests/bench/%.cpp.o $(HOST_OBJ)
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CXX) $(LDFLAGS) $^ $(LIBS) -o $@

bench: all $(BUILD)/tests/tokenizer_bench ## generated tokens/s, the tokenizer, the control plane, on this machine's CPUs; text and build/bench.json
	@tests/bench/run --build $(BUILD) --json $(BUILD)/bench.json $(BENCH_ARGS)

bench-rows: all $(BUILD)/tests/rows_bench ## a million rows under a thousand prefixes: rows put in order and handed out a second, rank 0's memory; what sharing costs where nothing is shared
	@tests/bench/rows --build $(BUILD) --json $(BUILD)/bench-rows.json $(BENCH_ROWS_ARGS)

# Policies without a GPU: BENCH_SCHEDULER_ARGS='--only mix --seed 2' runs a part.
SCHEDULER_BENCH_OBJ := $(call obj,$(wildcard tests/bench/scheduling/*.cpp))
$(BUILD)/tests/scheduler_bench: $(SCHEDULER_BENCH_OBJ) $(HOST_OBJ)
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CXX) $(LDFLAGS) $^ $(LIBS) -o $@
bench-scheduler: $(BUILD)/tests/scheduler_bench ## the scheduler on simulated workloads and two memory sizes: a model's time against a bound; text and build/bench-scheduler.json
	@$< data/qwen3-30b-a3b --json $(BUILD)/bench-scheduler.json $(BENCH_SCHEDULER_ARGS)
.PHONY: bench-scheduler

bench-schemas: all ## a thousand JSON schemas compiled beside rows that run, and a long one for a hundred thousand rows, on this machine's CPUs
	@tests/bench/schemas --build $(BUILD) --json $(BUILD)/bench-schemas.json $(BENCH_SCHEMAS_ARGS)

bench-scale: all ## the null device on 8 to 128 ranks of this machine: the coordinator's time and messages a row, rank 0's memory, start-up; text and build/bench-scale.json
	@tests/bench/scale --build $(BUILD) --json $(BUILD)/bench-scale.json $(BENCH_SCALE_ARGS)
.PHONY: bench-scale

bench-load: all ## a real checkpoint written with random values, from page cache and disk to the devices, GB/s. BENCH_LOAD_ARGS='--device cpu --layers 1' where there is no GPU
	@tests/bench/load --build $(BUILD) --json $(BUILD)/bench-load.json $(BENCH_LOAD_ARGS)
.PHONY: bench-load

bench-store: $(BUILD)/tests/store_bench ## the result store: 1 million rows sealed, resumed, merged; time and memory
	@$< 1000000 32 $(BUILD)
.PHONY: bench bench-rows bench-schemas bench-store
-include $(patsubst %.o,%.d,$(HOST_BENCH_OBJ) $(SCHEDULER_BENCH_OBJ))

# The GPU's ceilings, each operation, the whole model with dummy weights. BENCH_GPU_ARGS='--parts model --only 512/512' runs a part,
# with `--profile 20,22` too it says which kernels the GPU ran in those seconds.
ifeq ($(CUDA),1)
$(BUILD)/tests/ceilings: tests/bench/ceilings.cu
	@mkdir -p $(@D)
	@echo "  NVCC  $@"
	@$(NVCC) $(NVCCFLAGS) $< -o $@ -lcublasLt -Xlinker -rpath=$(CUDA_HOME)/lib64
$(BUILD)/tests/kernel_profile.so: tests/bench/kernel_profile.cpp
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CXX) -std=c++20 -O2 -Wall -Wextra -fPIC -shared -DFMT_HEADER_ONLY $(CUDA_INC) $< -o $@ -L$(CUDA_HOME)/lib64 -L$(CUDA_HOME)/extras/CUPTI/lib64 -lcupti -Wl,-rpath,$(CUDA_HOME)/lib64:$(CUDA_HOME)/extras/CUPTI/lib64
endif
bench-gpu: all $(BUILD)/tests/ceilings $(BUILD)/tests/ops_bench $(BUILD)/tests/kernel_profile.so ## a GPU's ceilings, every operation, the whole model (dummy weights): percent of bound; text and build/bench-gpu.json
	@tests/bench/gpu --build $(BUILD) --json $(BUILD)/bench-gpu.json $(BENCH_GPU_ARGS)
.PHONY: bench-gpu

# Evaluations: rows that begin alike. BENCH_PREFIXES_ARGS='--only "mmlu drawn" --device null' runs a part, on another device.
bench-prefixes: all $(if $(filter 1,$(CUDA)),$(BUILD)/tests/kernel_profile.so) ## evaluation-shaped rows with their beginnings shared and without (dummy weights): rows/s; text and build/bench-prefixes.json
	@tests/bench/prefixes --build $(BUILD) --json $(BUILD)/bench-prefixes.json $(BENCH_PREFIXES_ARGS)
.PHONY: bench-prefixes

# The expert exchange alone, one rank a GPU or CPU ranks. BENCH_EXCHANGE_ARGS='--all-to-all nccl' and RANKS say what runs.
RANKS ?= 2
EXCHANGE_BENCH_OBJ := $(call obj,tests/bench/exchange_bench.cpp tests/bench/exchange_check.cpp)
EXCHANGE_BENCH_ALL := $(EXCHANGE_BENCH_OBJ) $(filter-out $(call obj,src/main.cpp),$(MAIN_OBJ)) $(LINK_OBJ)
$(BUILD)/tests/exchange_bench: $(EXCHANGE_BENCH_ALL)
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CXX) $(LDFLAGS) $^ $(if $(filter 1,$(CUDA)),$(CUDA_LIBS)) $(LIBS) -o $@

bench-exchange: $(BUILD)/tests/exchange_bench ## dispatch + combine alone on RANKS ranks (default 2), against the cost model and all-gather + reduce-scatter
	@$(MPIRUN) -n $(RANKS) $< $(BENCH_EXCHANGE_ARGS)
.PHONY: bench-exchange
-include $(patsubst %.o,%.d,$(EXCHANGE_BENCH_OBJ))
