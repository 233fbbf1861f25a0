// As src/precompiled.h, for the unit tests.
#ifndef MOERUN_TESTS_PRECOMPILED_H
#define MOERUN_TESTS_PRECOMPILED_H
#include "src/precompiled.h"
// After what it names.
#include "tests/catch.h"
#endif
