#include "text/normalizer.h"

#include <nlohmann/json.hpp>

#include "text/nfc.h"
#include "text/replacement.h"

namespace moerun {
namespace {

using Made = std::unique_ptr<Normalizer>;

class Sequence : public Normalizer {
 public:
  explicit Sequence(std::vector<Made> steps) : steps_(std::move(steps)) {}
  std::string apply(std::string text) override {
    for (const Made& step : steps_) text = step->apply(std::move(text));
    return text;
  }

 private:
  std::vector<Made> steps_;
};

class Nfc : public Normalizer {
  std::string apply(std::string text) override { return nfc(text); }
};

class Prepend : public Normalizer {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
  std::string apply(std::string text) override {
    if (text.empty()) return text;
    check_replaced_bytes(prefix_.size() + text.size());
    return prefix_ + text;
  }

 private:
  std::string prefix_;
};

class Replace : public Normalizer {
 public:
  explicit Replace(Replacement replacement) : replacement_(std::move(replacement)) {}
  std::string apply(std::string text) override { return replacement_.apply(text); }

 private:
  Replacement replacement_;
};

Made read_sequence(const Component& component) {
  component.known_keys({"normalizers"});
  std::vector<Made> steps;
  for (const Component& step : component.list("normalizers")) steps.push_back(read_normalizer(step));
  return std::make_unique<Sequence>(std::move(steps));
}

Made read_nfc(const Component& component) {
  component.known_keys({});
  return std::make_unique<Nfc>();
}

Made read_prepend(const Component& component) {
  component.known_keys({"prepend"});
  return std::make_unique<Prepend>(component.text("prepend"));
}

Made read_replace(const Component& component) {
  return std::make_unique<Replace>(read_replacement(component));
}

constexpr ComponentReader<Made> kReaders[] = {
    {"Sequence", read_sequence}, {"NFC", read_nfc}, {"Prepend", read_prepend}, {"Replace", read_replace}};

}  // namespace

std::unique_ptr<Normalizer> read_normalizer(const Component& component) {
  if (component.absent()) return std::make_unique<Sequence>(std::vector<Made>());
  return read_by_type(kReaders, component);
}

}  // namespace moerun
