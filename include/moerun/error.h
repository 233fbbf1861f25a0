#pragma once
#include <stdexcept>
#include <string>

namespace moerun {

/// Exit codes of the program (docs/commands.md).
enum class ExitCode : int {
  ok = 0,          ///< every row answered
  fault = 1,       ///< something broke while running; the same command resumes
  bad_input = 2,   ///< the job or its input is wrong; nothing ran
  row_errors = 3,  ///< finished, but some rows carry an error
  running = 4,     ///< `moerun status` alone: the job runs
  stopped = 75,    ///< stopped early on a signal, time limit or full disk; the same command resumes
};

/// A fault with a sentence that a user can act on, and the exit code it ends the program with.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& what, ExitCode code = ExitCode::fault)
      : std::runtime_error(what), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

/// A job or an input that must not run: exit code 2.
class BadInput : public Error {
 public:
  explicit BadInput(const std::string& what) : Error(what, ExitCode::bad_input) {}
};

}  // namespace moerun
