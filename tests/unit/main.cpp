#include "io/hdf5_child_main.h"
#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_session.hpp>
#else
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>
#endif

int main(int argc, char** argv) {
  // HDF5 inputs are read by this program started again.
  if (const auto code = moerun::hdf5_child_main(argc, argv)) return *code;
  return Catch::Session().run(argc, argv);
}
