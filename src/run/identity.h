#pragma once
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "moerun/io.h"
#include "run/start_up.h"

namespace moerun {

/// What decides the answers of a job: the same in every run that may go on with its results.
Fingerprint fingerprint_of(const CheckedJob& checked);

/// How the output came to be.
Provenance provenance_of(const CheckedJob& checked);

/// SHA-256 (hex) of every tensor's name, type, shape and file, of the files' size, and of some values from
/// each tensor's middle: other weights of the same shapes have another one. To read them all, 61 GB, would
/// take minutes.
std::string checksum_of(const Checkpoint& checkpoint);

/// "cpu", "cuda", "null".
std::string name_of(Job::DeviceKind kind);

}  // namespace moerun
