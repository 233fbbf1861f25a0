# moerun: plain `make` builds build/moerun. `make help` lists the rest.
MAKEFLAGS += -r
SHELL := /bin/bash
.DEFAULT_GOAL := all

BUILD   := build
MPICXX  ?= mpicxx
CXX     := $(MPICXX)
NVCC    ?= $(firstword $(shell command -v nvcc 2>/dev/null) $(wildcard /usr/local/cuda/bin/nvcc))
CUDA    ?= $(if $(NVCC),1,0)
VERSION := 0.1.0
GIT     := $(shell git describe --always --dirty 2>/dev/null || echo unknown)

HDF5_CFLAGS := $(shell pkg-config --cflags hdf5-serial 2>/dev/null || pkg-config --cflags hdf5 2>/dev/null)
HDF5_LIBS   := $(or $(shell pkg-config --libs hdf5-serial 2>/dev/null || pkg-config --libs hdf5 2>/dev/null),-lhdf5)
LIBS     := $(HDF5_LIBS) -lyaml-cpp -lfmt -lpcre2-8 -lutf8proc -lcrypto -lpthread -ldl
CPPFLAGS := -Iinclude -Isrc -I. $(HDF5_CFLAGS) -MD -MP
CXXFLAGS ?= -O2 -g
CXXFLAGS += -std=c++20 -Wall -Wextra -Werror -ffp-contract=off -fno-math-errno -fopenmp
LDFLAGS  += -fopenmp

# Host | CUDA seam: these alone may see CUDA or NCCL headers.
CUDA_SRC := $(wildcard src/device/cuda*.cpp src/device/cuda/*.cpp src/comm/nccl*.cpp src/comm/p2p*.cpp)
KERNELS  := $(wildcard kernels/cuda/*.cu)
HOST_SRC := $(filter-out $(CUDA_SRC) src/main.cpp, $(wildcard src/*.cpp src/*/*.cpp src/*/*/*.cpp)) $(wildcard kernels/cpu/*.cpp)
UNIT_SRC := $(wildcard tests/unit/*.cpp)

obj = $(patsubst %,$(BUILD)/obj/%.o,$(1))
HOST_OBJ := $(call obj,$(HOST_SRC))
CUDA_OBJ := $(call obj,$(CUDA_SRC) $(KERNELS))
MAIN_OBJ := $(call obj,$(wildcard src/main.cpp))
UNIT_OBJ := $(call obj,$(UNIT_SRC))

ifeq ($(CUDA),1)
  CUDA_HOME  ?= $(patsubst %/bin/nvcc,%,$(NVCC))
  NVCCFLAGS  ?= -O3 -lineinfo
  NVCCFLAGS  += -std=c++20 -gencode=arch=compute_90a,code=sm_90a -Werror all-warnings --expt-relaxed-constexpr
  CUDA_INC   := -I$(CUDA_HOME)/include
  CUDA_LIBS  := -L$(CUDA_HOME)/lib64 -lcudart_static -lcublasLt -lnccl -lrt
  LINK_OBJ   := $(HOST_OBJ) $(CUDA_OBJ)
else
  LINK_OBJ   := $(HOST_OBJ)
endif

all: $(BUILD)/moerun

$(BUILD)/obj/kernels/cpu/%.cpp.o: CXXFLAGS += -O3
$(call obj,$(CUDA_SRC)): CPPFLAGS += $(CUDA_INC)
$(BUILD)/obj/src/%.cpp.o: CPPFLAGS += -DMOERUN_CUDA=$(CUDA)

$(BUILD)/obj/%.cpp.o: %.cpp
	@mkdir -p $(@D)
	$(CXX) $(CPPFLAGS) $(CXXFLAGS) -c $< -o $@

$(BUILD)/obj/%.cu.o: %.cu
	@mkdir -p $(@D)
	$(NVCC) $(NVCCFLAGS) -Iinclude -Isrc -I. -MD -MP -MF $(@:.o=.d) -c $< -o $@

$(BUILD)/moerun: $(MAIN_OBJ) $(LINK_OBJ)
	$(CXX) $(LDFLAGS) $^ $(if $(filter 1,$(CUDA)),$(CUDA_LIBS)) $(LIBS) -o $@

$(BUILD)/tests/unit: $(UNIT_OBJ) $(HOST_OBJ)
	@mkdir -p $(@D)
	$(CXX) $(LDFLAGS) $^ $(LIBS) $(CATCH_LIBS) -o $@

# Catch2 v3 has a library with a main; v2 is headers alone (tests/catch.h, tests/unit/main.cpp).
CATCH_LIBS := $(if $(wildcard /usr/include/catch2/catch_all.hpp),-lCatch2)

unit: $(BUILD)/tests/unit
	$<

kernels: $(call obj,$(KERNELS))

clean:
	rm -rf $(BUILD)

.PHONY: all unit kernels clean
-include $(patsubst %.o,%.d,$(HOST_OBJ) $(CUDA_OBJ) $(MAIN_OBJ) $(UNIT_OBJ))
