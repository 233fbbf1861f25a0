#pragma once
#include <cstdint>
#include <span>
#include <string_view>

#include "text/code_point_set.h"

/// The project's own character data, the same on every machine whatever its libraries know: Unicode 16.0.0,
/// as Hugging Face `tokenizers` since 0.21.2.
namespace moerun::unicode_tables {

/// General categories, by their names in the Unicode Character Database.
// clang-format off
enum class Category : uint8_t {
  Lu, Ll, Lt, Lm, Lo, Mn, Mc, Me, Nd, Nl, No, Pc, Pd, Ps, Pe, Pi, Pf, Po, Sm, Sc, Sk, So, Zs, Zl, Zp, Cc, Cf, Cs, Co, Cn
};
inline constexpr std::string_view kCategoryNames[] = {
    "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe",
    "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co", "Cn"};
// clang-format on

/// `category` from `first` to the next run's.
struct CategoryRun {
  char32_t first;
  Category category;
};

/// A value of the property Script.
struct Script {
  std::string_view name;
  std::span<const CodePointRange> ranges;
};

std::span<const CategoryRun> category_runs();  ///< of all code points, ascending from 0
std::span<const Script> scripts();             ///< those that split patterns have been seen to name

/// Code points that take part in Unicode 16's normalization and not in that of `tokenizers` (Unicode 9).
std::span<const CodePointRange> nfc_inert();

}  // namespace moerun::unicode_tables
