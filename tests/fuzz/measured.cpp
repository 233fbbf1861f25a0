#include "comm/measured_exchange.h"
#include "tests/fuzz/harness.h"

namespace moerun::fuzz {

/// What `moerun check --measured` reads.
void read_measured(std::string_view bytes) {
  for (const MeasuredExchange& row : read_measured_exchange(write_scratch("measured.json", bytes)))
    static_cast<void>(row.cost());
}

}  // namespace moerun::fuzz
