#pragma once
#include <fmt/format.h>

#include <stdexcept>
#include <string>

namespace moerun::jinja {

/// What goes wrong in a template, in jinja2's or Python's words.
class TemplateError : public std::runtime_error {
 public:
  enum class Kind {
    fault,   ///< of the template or of what it was given
    raised,  ///< the template's own words, by raise_exception()
    limit,   ///< a bound of limits.h
  };
  explicit TemplateError(const std::string& what, Kind kind = Kind::fault, int line = 0)
      : std::runtime_error(what), kind_(kind), line_(line) {}
  Kind kind() const { return kind_; }
  int line() const { return line_; }  ///< 1-based line of the template; 0: not known

 private:
  Kind kind_;
  int line_;
};

}  // namespace moerun::jinja
