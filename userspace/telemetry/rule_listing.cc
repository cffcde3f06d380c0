#include "telemetry/rule_listing.h"

#include <charconv>

#include "absl/strings/str_cat.h"

namespace sluice::telemetry {
namespace {

constexpr std::string_view kHandle = " # handle ";

struct Handle {
  uint64_t value = 0;
  size_t text_end = 0;  // of the line without it
};

// Of the end of the line: what looks the same within a comment is not it.
std::optional<Handle> HandleOf(std::string_view line) {
  const size_t at = line.rfind(kHandle);
  if (at == std::string_view::npos) return {};
  Handle handle{0, at};
  const char* const end = line.data() + line.size();
  const auto [stop, error] =
      std::from_chars(line.data() + at + kHandle.size(), end, handle.value);
  if (error != std::errc() || stop != end) return {};
  return handle;
}

std::string_view TakeWord(std::string_view& text) {
  const size_t end = std::min(text.find(' '), text.size());
  const std::string_view word = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return word;
}

// The place of `words` outside of quotes.
size_t FindUnquoted(std::string_view line, std::string_view words) {
  bool quoted = false;
  for (size_t i = 0; i + words.size() <= line.size(); ++i) {
    if (line[i] == '"') quoted = !quoted;
    if (!quoted && line.substr(i, words.size()) == words) return i;
  }
  return std::string_view::npos;
}

size_t EndOfDigits(std::string_view line, size_t at) {
  while (at < line.size() && line[at] >= '0' && line[at] <= '9') ++at;
  return at;
}

// Replaces `packets N bytes M` behind `prefix`, or adds to it; leaves lines without it alone.
bool ReplaceCounts(std::string* line, std::string_view prefix, const RuleStatus& status) {
  const std::string head = absl::StrCat(absl::string_view(prefix.data(), prefix.size()), "packets ");
  const size_t at = FindUnquoted(*line, head);
  if (at == std::string::npos) return false;
  constexpr std::string_view kBytes = " bytes ";
  const size_t packets_end = EndOfDigits(*line, at + head.size());
  if (line->compare(packets_end, kBytes.size(), kBytes) != 0) return false;
  const size_t end = EndOfDigits(*line, packets_end + kBytes.size());
  uint64_t packets = 0;
  uint64_t bytes = 0;
  if (status.adds) {
    const char* const text = line->data();
    std::from_chars(text + at + head.size(), text + packets_end, packets);
    std::from_chars(text + packets_end + kBytes.size(), text + end, bytes);
  }
  line->replace(at, end - at, absl::StrCat(head, packets + status.packets, " bytes ",
                                           bytes + status.bytes));
  return true;
}

size_t Tabs(std::string_view line) {
  const size_t at = line.find_first_not_of('\t');
  return at == std::string_view::npos ? 0 : at;
}

class Annotator {
 public:
  explicit Annotator(const RuleStatusSource& source) : source_(source) {}

  RuleLineView Line(std::string_view text) {
    RuleLineView line;
    line.text = std::string(text);
    const size_t tabs = Tabs(text);
    std::string_view rest = text.substr(tabs);
    if (tabs == 0) {
      if (TakeWord(rest) == "table") {
        family_ = TakeWord(rest);
        table_ = TakeWord(rest);
      }
      block_ = {};
    } else if (tabs == 1) {
      block_ = TakeWord(rest);
      name_ = TakeWord(rest);
    } else if (tabs == 2 && block_ == "chain") {
      Rule(text, &line);
    } else if (tabs == 2 && block_ == "counter") {
      NamedCounter(&line);
    }
    return line;
  }

 private:
  void Rule(std::string_view text, RuleLineView* line) {
    const auto handle = HandleOf(text);
    if (!handle) return;  // the hook's line, or the chain's comment
    Name(line);
    line->handle = handle->value;
    const auto status = source_.rule ? source_.rule({family_, table_, name_, handle->value})
                                     : std::optional<RuleStatus>();
    line->where = status ? status->where : "-";
    if (!status) return;
    line->reason = status->reason;
    if (!status->counts) return;
    line->packets = status->packets;
    line->bytes = status->bytes;
    ReplaceCounts(&line->text, "counter ", *status);
  }

  void NamedCounter(RuleLineView* line) {
    const auto status = source_.counter ? source_.counter(family_, table_, name_)
                                        : std::optional<RuleStatus>();
    if (!status || !status->counts || !ReplaceCounts(&line->text, "", *status)) return;
    Name(line);
    line->packets = status->packets;
    line->bytes = status->bytes;
  }

  void Name(RuleLineView* line) const {
    line->family = std::string(family_);
    line->table = std::string(table_);
    line->chain = std::string(name_);
  }

  const RuleStatusSource& source_;
  std::string_view family_, table_;
  std::string_view block_, name_;  // "chain" and its name, or another kind of object
};

}  // namespace

std::vector<RuleLineView> AnnotateListing(std::string_view listing,
                                          const RuleStatusSource& source) {
  Annotator annotator(source);
  std::vector<RuleLineView> lines;
  while (!listing.empty()) {
    const size_t end = std::min(listing.find('\n'), listing.size());
    lines.push_back(annotator.Line(listing.substr(0, end)));
    listing.remove_prefix(std::min(end + 1, listing.size()));
  }
  return lines;
}

}  // namespace sluice::telemetry
