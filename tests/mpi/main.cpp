#include <fmt/core.h>

#include <exception>

#include "tests/mpi/harness.h"

int main(int argc, char** argv) {
  try {
    const moerun::MpiEnv env(&argc, &argv);
    moerun::mpi_test::Suite suite(env);
    moerun::mpi_test::test_env(env, suite);
    moerun::mpi_test::test_collectives(env, suite);
    moerun::mpi_test::test_exchange(env, suite);
    return suite.finish();
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
