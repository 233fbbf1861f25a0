// What most sources include, parsed once for all of them (the Makefile's PRECOMPILED; PRECOMPILED=0 goes
// without). Nothing of the project, and nothing that tests/seams/check keeps from anybody: sources go on
// including what they use.
#ifndef MOERUN_PRECOMPILED_H
#define MOERUN_PRECOMPILED_H
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>
#include <set>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>
#endif
