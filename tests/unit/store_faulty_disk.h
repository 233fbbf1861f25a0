#pragma once
#include <cstdint>
#include <functional>
#include <string>

// This program's calls that change files (write, pwrite, ftruncate, fsync, rename*, linkat, unlink*, mkdir,
// rmdir) go through functions of store_faulty_disk.cpp, which the linker finds before libc's, for moerun and
// HDF5 alike. They pass on what they get, except in a child process that run_on_faulty_disk started.

namespace moerun {

enum class Fault {
  none,
  kill,        ///< the process dies at the step; a write is half done. What was written stays, synced or not
  power_cut,   ///< as kill, and what was not synced is lost: bytes, new names, removed names
  fails_once,  ///< the call of the step fails with "input/output error", and has done nothing
  lost_write,  ///< the write of the step says that it succeeded, and has written nothing
  full_disk,   ///< from the step on, writes fail with "no space left", the first after half of its bytes
};

struct FaultyRun {
  bool finished = false;      ///< the body returned
  int exit_code = -1;         ///< of a body that threw Error, its ExitCode
  std::string message;        ///< and its text
  uint64_t acknowledged = 0;  ///< as the body last said
  bool struck = false;        ///< the step was reached
};

/// Runs `body` in a child process whose files are in `directory`, and strikes at step `step` (from 1) of its
/// changes to files. `body` says how many answers it knows to be safe by writing to its argument. fsync does
/// not wait for the real disk there.
FaultyRun run_on_faulty_disk(const std::string& directory, Fault fault, uint64_t step,
                             const std::function<void(volatile uint64_t& acknowledged)>& body);

}  // namespace moerun
