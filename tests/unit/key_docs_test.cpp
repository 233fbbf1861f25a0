#include "job/key_docs.h"

#include <algorithm>
#include <fstream>
#include <iterator>

#include "job/help_command.h"
#include "job/job_fields.h"
#include "tests/catch.h"

using namespace moerun;

TEST_CASE("every key of a job is described, once", "[job]") {
  const std::vector<KeyDoc> docs = key_docs();
  CHECK(docs.size() == job_fields().size() + random_input_fields().size());
  for (const KeyDoc& doc : docs) {
    INFO(doc.key);
    CHECK_FALSE(doc.meaning.empty());
    CHECK_FALSE(doc.type.empty());
    CHECK(std::count_if(docs.begin(), docs.end(),
                        [&](const KeyDoc& other) { return other.key == doc.key; }) == 1);
  }
}

TEST_CASE("The table of docs/job-keys.md is what moerun help keys-markdown prints", "[job]") {
  std::ifstream file("docs/job-keys.md");
  const std::string page{std::istreambuf_iterator<char>(file), {}};
  REQUIRE_FALSE(page.empty());
  for (const std::string& text = keys_as_markdown(); const KeyDoc& doc : key_docs()) {
    const size_t at = text.find("| `" + doc.key + "` |");
    const std::string line = text.substr(at, text.find('\n', at) - at + 1);
    INFO(line);
    CHECK(page.find(line) != std::string::npos);
  }
  CHECK(page.find(keys_as_markdown()) != std::string::npos);
}

TEST_CASE("the keys as text and as a manual page name each with its default", "[job]") {
  CHECK(keys_as_text().find("\nsampling.max_tokens  (tokens; default 16)\n    of an answer;") !=
        std::string::npos);
  const std::string page = help_text("man", "1.2.3");
  CHECK(page.find(".TH MOERUN 1 \"\" \"moerun 1.2.3\"") == 0);
  for (const KeyDoc& doc : key_docs()) CHECK(page.find(".B " + doc.key + "\n") != std::string::npos);
  CHECK(page.find("\n.B 75\nstopped early") != std::string::npos);
}
