#include "text/jinja/integer.h"

#include <array>
#include <cmath>
#include <functional>
#include <new>

#include "text/jinja/limits.h"
#include "text/jinja/template_error.h"

namespace moerun::jinja {
namespace {

using Context = std::unique_ptr<BN_CTX, decltype(&BN_CTX_free)>;

Context context() { return {BN_CTX_new(), BN_CTX_free}; }

void require(bool worked) {
  if (!worked) throw std::bad_alloc();
}

[[noreturn]] void too_large() {
  throw TemplateError(fmt::format("an integer of more than {} bits", kMaxIntegerBits));
}

}  // namespace

Integer::Big Integer::make() {
  Big out(BN_new(), BN_free);
  require(out != nullptr);
  return out;
}

Integer Integer::from_big(Big big) {
  if (BN_num_bits(big.get()) > kMaxIntegerBits) too_large();
  Integer out;
  if (BN_num_bits(big.get()) <= 63) {
    std::array<unsigned char, 8> bytes{};
    BN_bn2binpad(big.get(), bytes.data(), bytes.size());
    uint64_t magnitude = 0;
    for (const unsigned char byte : bytes) magnitude = magnitude << 8 | byte;
    out.small_ =
        BN_is_negative(big.get()) ? -static_cast<int64_t>(magnitude) : static_cast<int64_t>(magnitude);
  } else {
    out.big_ = std::move(big);
  }
  return out;
}

Integer::Big Integer::big() const {
  if (big_) return big_;
  Big out = make();
  const uint64_t magnitude =
      small_ < 0 ? uint64_t{0} - static_cast<uint64_t>(small_) : static_cast<uint64_t>(small_);
  require(BN_set_word(out.get(), magnitude));
  BN_set_negative(out.get(), small_ < 0);
  return out;
}

Integer Integer::from_digits(std::string_view decimal) { return from_digits(decimal, 10); }

Integer Integer::from_digits(std::string_view digits, int base) {
  const bool negative = digits.starts_with('-');
  if (negative || digits.starts_with('+')) digits.remove_prefix(1);
  if (digits.size() > static_cast<size_t>(kMaxIntegerBits)) too_large();
  Big out = make();
  for (const char c : digits) {
    const int digit = c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;
    require(BN_mul_word(out.get(), static_cast<BN_ULONG>(base)) &&
            BN_add_word(out.get(), static_cast<BN_ULONG>(digit)));
    if (BN_num_bits(out.get()) > kMaxIntegerBits) too_large();
  }
  BN_set_negative(out.get(), negative);
  return from_big(std::move(out));
}

Integer Integer::from_double(double value) {
  value = std::trunc(value);
  if (std::abs(value) < 0x1p62) return {static_cast<int64_t>(value)};
  int exponent = 0;
  const double mantissa = std::frexp(value, &exponent);  // value = mantissa · 2^exponent
  const Big out = Integer(static_cast<int64_t>(std::ldexp(mantissa, 53))).big();
  require(BN_lshift(out.get(), out.get(), exponent - 53));
  return from_big(out);
}

bool Integer::is_negative() const { return big_ ? BN_is_negative(big_.get()) : small_ < 0; }

std::string Integer::text() const {
  if (!big_) return std::to_string(small_);
  const std::unique_ptr<char, void (*)(char*)> text(BN_bn2dec(big_.get()), [](char* p) { OPENSSL_free(p); });
  require(text != nullptr);
  return text.get();
}

std::string Integer::digits(int base, bool upper) const {
  if (base == 10) {
    std::string out = text();
    return out.starts_with('-') ? out.substr(1) : out;
  }
  const Big rest(BN_dup(big().get()), BN_free);
  require(rest != nullptr);
  std::string out;
  while (!BN_is_zero(rest.get())) {
    const BN_ULONG digit = BN_div_word(rest.get(), static_cast<BN_ULONG>(base));
    out.insert(out.begin(), (upper ? "0123456789ABCDEF" : "0123456789abcdef")[digit]);
  }
  return out.empty() ? "0" : out;
}

double Integer::to_double() const {
  if (!big_) return static_cast<double>(small_);
  const double out = std::strtod(text().c_str(), nullptr);
  if (std::isinf(out)) throw TemplateError("int too large to convert to float");
  return out;
}

size_t Integer::hash() const {
  return big_ ? std::hash<std::string>()(text()) : std::hash<int64_t>()(small_);
}

Integer operator+(const Integer& a, const Integer& b) {
  int64_t sum = 0;
  if (a.fits() && b.fits() && !__builtin_add_overflow(a.small_, b.small_, &sum)) return {sum};
  Integer::Big out = Integer::make();
  require(BN_add(out.get(), a.big().get(), b.big().get()));
  return Integer::from_big(std::move(out));
}

Integer operator-(const Integer& a, const Integer& b) {
  int64_t difference = 0;
  if (a.fits() && b.fits() && !__builtin_sub_overflow(a.small_, b.small_, &difference)) return {difference};
  Integer::Big out = Integer::make();
  require(BN_sub(out.get(), a.big().get(), b.big().get()));
  return Integer::from_big(std::move(out));
}

Integer operator*(const Integer& a, const Integer& b) {
  int64_t product = 0;
  if (a.fits() && b.fits() && !__builtin_mul_overflow(a.small_, b.small_, &product)) return {product};
  Integer::Big out = Integer::make();
  require(BN_mul(out.get(), a.big().get(), b.big().get(), context().get()));
  return Integer::from_big(std::move(out));
}

Integer Integer::operator-() const { return Integer(0) - *this; }

std::pair<Integer, Integer> Integer::divide(const Integer& a, const Integer& b) {
  if (b.is_zero()) throw TemplateError("integer division or modulo by zero");
  Big quotient = make(), remainder = make();
  require(BN_div(quotient.get(), remainder.get(), a.big().get(), b.big().get(), context().get()));
  Integer q = from_big(std::move(quotient)), r = from_big(std::move(remainder));
  if (!r.is_zero() && r.is_negative() != b.is_negative()) {  // BN_div rounds towards zero
    q = q - Integer(1);
    r = r + b;
  }
  return {q, r};
}

Integer Integer::floor_divide(const Integer& a, const Integer& b) { return divide(a, b).first; }

Integer Integer::modulo(const Integer& a, const Integer& b) { return divide(a, b).second; }

Integer Integer::power(const Integer& base, const Integer& exponent) {
  const bool unit = base.fits() && std::abs(base.small_) <= 1;
  if (!unit && (!exponent.fits() || exponent.small_ > kMaxIntegerBits)) too_large();
  if (unit) {
    const bool odd = exponent.fits() ? exponent.small_ % 2 != 0 : BN_is_odd(exponent.big_.get());
    return exponent.is_zero() || (base.small_ == -1 && !odd) ? Integer(1) : base;
  }
  Integer out(1), square = base;
  for (int64_t left = exponent.small_; left > 0; left >>= 1) {
    if (left & 1) out = out * square;
    if (left > 1) square = square * square;
  }
  return out;
}

std::strong_ordering operator<=>(const Integer& a, const Integer& b) {
  if (a.fits() && b.fits()) return a.small_ <=> b.small_;
  return BN_cmp(a.big().get(), b.big().get()) <=> 0;
}

std::partial_ordering Integer::compare(const Integer& a, double b) {
  if (std::isnan(b)) return std::partial_ordering::unordered;
  if (std::isinf(b)) return b > 0 ? std::partial_ordering::less : std::partial_ordering::greater;
  const auto whole = a <=> from_double(b);
  if (whole != 0) return whole;
  return 0.0 <=> (b - std::trunc(b));
}

}  // namespace moerun::jinja
