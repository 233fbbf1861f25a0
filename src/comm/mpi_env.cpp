#include "comm/mpi_env.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <exception>
#include <limits>
#include <numeric>
#include <utility>

#include "moerun/error.h"

namespace moerun {

void mpi_check(int status, const char* call, const char* file, int line) {
  if (status == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  MPI_Error_string(status, text.data(), &length);
  throw Error(fmt::format("MPI: {} ({} at {}:{})", std::string(text.data(), static_cast<size_t>(length)),
                          call, file, line));
}

int byte_count(size_t bytes) {
  if (bytes > static_cast<size_t>(std::numeric_limits<int>::max())) {
    throw Error(fmt::format(
        "a block of {} bytes is too large for MPI: lower scheduler.max_num_batched_tokens", bytes));
  }
  return static_cast<int>(bytes);
}

Communicator::Communicator(MPI_Comm owned) : comm_(owned) {
  MPI_CHECK(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN));
  MPI_CHECK(MPI_Comm_rank(comm_, &rank_));
  MPI_CHECK(MPI_Comm_size(comm_, &size_));
}

Communicator::~Communicator() {
  // Freeing is collective: while an error unwinds, peers may not come to it.
  if (comm_ != MPI_COMM_NULL && std::uncaught_exceptions() == 0) MPI_Comm_free(&comm_);
}

Communicator::Communicator(Communicator&& other) noexcept
    : comm_(std::exchange(other.comm_, MPI_COMM_NULL)), rank_(other.rank_), size_(other.size_) {}

Communicator& Communicator::operator=(Communicator&& other) noexcept {
  std::swap(comm_, other.comm_);
  std::swap(rank_, other.rank_);
  std::swap(size_, other.size_);
  return *this;
}

MpiEnv::Session::Session(int* argc, char*** argv) : exceptions(std::uncaught_exceptions()) {
  int provided = MPI_THREAD_SINGLE;
  MPI_CHECK(MPI_Init_thread(argc, argv, MPI_THREAD_MULTIPLE, &provided));
  if (provided < MPI_THREAD_MULTIPLE) {
    MPI_Finalize();
    std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> version{};
    int length = 0;
    MPI_Get_library_version(version.data(), &length);
    throw Error(
        fmt::format("this MPI library does not let several threads call it (MPI_THREAD_MULTIPLE), which "
                    "the coordinator needs: use one built with thread support ({})",
                    std::string(version.data(), static_cast<size_t>(length))));
  }
}

MpiEnv::Session::~Session() {
  if (std::uncaught_exceptions() == exceptions) MPI_Finalize();
}

namespace {

MPI_Comm duplicate(MPI_Comm comm) {
  MPI_Comm copy = MPI_COMM_NULL;
  MPI_CHECK(MPI_Comm_dup(comm, &copy));
  return copy;
}

MPI_Comm split(MPI_Comm comm, int color, int key) {
  MPI_Comm part = MPI_COMM_NULL;
  MPI_CHECK(MPI_Comm_split(comm, color, key, &part));
  return part;
}

std::string host_name() {
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) != 0) return "unknown-host";
  return name.data();
}

}  // namespace

MpiEnv::MpiEnv(int* argc, char*** argv) : session_(argc, argv), world_(duplicate(MPI_COMM_WORLD)) {
  MPI_Comm shared = MPI_COMM_NULL;
  MPI_CHECK(MPI_Comm_split_type(world_, MPI_COMM_TYPE_SHARED, rank(), MPI_INFO_NULL, &shared));
  const Communicator node(shared);
  local_rank_ = node.rank();
  local_size_ = node.size();
  hosts_ = all_gather(host_name());
}

MpiEnv::~MpiEnv() = default;

std::vector<std::string> MpiEnv::all_gather(const std::string& mine) const {
  const Waiting waiting(progress_);
  const int length = static_cast<int>(mine.size());
  std::vector<int> lengths(static_cast<size_t>(size()));
  MPI_CHECK(MPI_Allgather(&length, 1, MPI_INT, lengths.data(), 1, MPI_INT, world_));
  std::vector<int> begins(lengths.size());
  std::exclusive_scan(lengths.begin(), lengths.end(), begins.begin(), 0);
  std::string text(static_cast<size_t>(begins.back() + lengths.back()), '\0');
  MPI_CHECK(MPI_Allgatherv(mine.data(), length, MPI_CHAR, text.data(), lengths.data(), begins.data(),
                           MPI_CHAR, world_));
  std::vector<std::string> texts(lengths.size());
  for (size_t r = 0; r < texts.size(); ++r) {
    texts[r] = text.substr(static_cast<size_t>(begins[r]), static_cast<size_t>(lengths[r]));
  }
  return texts;
}

std::vector<std::string> MpiEnv::gather(const std::string& mine) const {
  const Waiting waiting(progress_);
  const int length = byte_count(mine.size());
  std::vector<int> lengths(rank() == 0 ? static_cast<size_t>(size()) : 0);
  MPI_CHECK(MPI_Gather(&length, 1, MPI_INT, lengths.data(), 1, MPI_INT, 0, world_));
  constexpr int kTag = 0;  // this communicator carries collectives alone beside
  if (rank() != 0) {
    MPI_CHECK(MPI_Send(mine.data(), length, MPI_CHAR, 0, kTag, world_));
    return {};
  }
  std::vector<std::string> texts{mine};
  for (int from = 1; from < size(); ++from) {
    std::string& text = texts.emplace_back(static_cast<size_t>(lengths[static_cast<size_t>(from)]), '\0');
    MPI_CHECK(
        MPI_Recv(text.data(), byte_count(text.size()), MPI_CHAR, from, kTag, world_, MPI_STATUS_IGNORE));
  }
  return texts;
}

std::string MpiEnv::broadcast(const std::string& text) const {
  const Waiting waiting(progress_);
  auto length = static_cast<uint64_t>(text.size());
  MPI_CHECK(MPI_Bcast(&length, 1, MPI_UINT64_T, 0, world_));
  std::string copy = text;
  copy.resize(length);
  constexpr uint64_t kPiece = 1 << 30;  // counts are ints
  for (uint64_t begin = 0; begin < length; begin += kPiece) {
    MPI_CHECK(MPI_Bcast(copy.data() + begin, static_cast<int>(std::min(kPiece, length - begin)), MPI_CHAR, 0,
                        world_));
  }
  return copy;
}

Communicators::Communicators(const MpiEnv& env, const Layout& layout) {
  const Waiting waiting(env.progress());
  control = Communicator(duplicate(env.world()));
  ep = Communicator(split(env.world(), coordinates_of(layout, env.rank()).replica, env.rank()));
  tp = Communicator(split(env.world(), env.rank() / layout.tensor, env.rank()));
}

}  // namespace moerun
