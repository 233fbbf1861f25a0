#include "job/fields.h"

#include "base/shortened.h"

namespace moerun {

std::string shown(const Json& value) {
  return shortened(value.dump(-1, ' ', false, Json::error_handler_t::replace), 60);
}

std::string must_be(std::string_view what, const Json& value) {
  return fmt::format("must be {}, not {}", what, shown(value));
}

std::string IntegerRange::words() const {
  constexpr int64_t kUnbounded = std::numeric_limits<int32_t>::max();
  return most >= kUnbounded ? fmt::format("of at least {}", least)
                            : fmt::format("from {} to {}", least, most);
}

bool IntegerRange::read(const Json& value, int64_t& out) const {
  if (value.is_number_float()) {
    const double number = value.get<double>();
    if (!(std::abs(number) <= 9007199254740992.0) || number != std::floor(number)) return false;
    out = static_cast<int64_t>(number);
    return out >= least && out <= most;
  }
  if (!value.is_number_integer()) return false;
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(most)) return false;
  out = value.get<int64_t>();
  return out >= least && out <= most;
}

std::string NumberRange::words() const {
  if (most >= std::numeric_limits<float>::max())
    return above_least ? fmt::format("above {}", least) : fmt::format("of at least {}", least);
  return above_least ? fmt::format("above {} and at most {}", least, most)
                     : fmt::format("from {} to {}", least, most);
}

bool NumberRange::read(const Json& value, double& out) const {
  if (!value.is_number()) return false;
  out = value.get<double>();
  return out <= most && (above_least ? out > least : out >= least);  // false for NaN
}

Json json_of(float value) { return Json::parse(fmt::format("{}", value)); }

}  // namespace moerun
