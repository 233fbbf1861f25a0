#include "io/hdf5_child.h"

#include <cstdlib>

#include "io/hdf5_child_main.h"
#include "io/hdf5_input.h"
#include "moerun/error.h"
#include "moerun/wire.h"

namespace moerun {
namespace {

enum class Request : uint8_t { open, read, look };

// --- the process that reads ---

std::string packed_shape(const Hdf5InputShape& shape) {
  WireWriter out;
  out.put(shape.num_rows), out.put(shape.has_text), out.put(shape.has_ids), out.put(shape.id_kind);
  out.put(shape.has_sampling);
  return out.take();
}

std::string packed(const FinishedOutput& output) {
  WireWriter out;
  out.put(output.fingerprint), out.put(output.program_version), out.put(output.git_revision);
  out.put(output.layout), out.put(output.start), out.put(output.end);
  out.put(output.num_rows), out.put(output.num_row_errors);
  return out.take();
}

std::string answer(const std::string& request, std::optional<Hdf5Input>& input) {
  WireReader in(request);
  const auto kind = in.get<Request>();
  if (kind == Request::read) return input.value().read(in.get<uint64_t>()).pack();
  const auto path = in.get<std::string>();
  if (kind == Request::look) return packed(look_at_finished_output(path));
  input.emplace(path, in.get<bool>(), limit_hdf5_request);
  return packed_shape(input->shape());
}

}  // namespace

std::optional<int> hdf5_child_main(int argc, char** argv) {
  if (!is_hdf5_process(argc, argv)) return std::nullopt;
  std::optional<Hdf5Input> input;
  serve_hdf5_requests([&](const std::string& request) { return answer(request, input); });
  // HDF5 crashes in closing some damaged files: nothing here needs to be closed.
  std::_Exit(0);
}

// --- its owner ---

Hdf5Child::Hdf5Child(const std::string& path, bool allow_external) : process_(path) {
  WireWriter request;
  request.put(Request::open), request.put(path), request.put(allow_external);
  const std::string reply = process_.ask(request.take());
  WireReader in(reply);
  in.get(shape_.num_rows), in.get(shape_.has_text), in.get(shape_.has_ids), in.get(shape_.id_kind);
  in.get(shape_.has_sampling);
}

std::string Hdf5Child::read(uint64_t first_row) {
  WireWriter request;
  request.put(Request::read), request.put(first_row);
  return process_.ask(request.take());
}

FinishedOutput read_finished_output(const std::filesystem::path& path) {
  WireWriter request;
  request.put(Request::look), request.put(path.string());
  const std::string reply = Hdf5Process(path.string(), Hdf5Process::kFewSeconds).ask(request.take());
  WireReader in(reply);
  FinishedOutput output;
  in.get(output.fingerprint), in.get(output.program_version), in.get(output.git_revision);
  in.get(output.layout), in.get(output.start), in.get(output.end);
  in.get(output.num_rows), in.get(output.num_row_errors);
  return output;
}

}  // namespace moerun
