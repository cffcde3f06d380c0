#include "control/nft/rule_text.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "control/nft/nft_context.h"

namespace sluice::control::nft {
namespace {

constexpr std::string_view kHandle = " # handle ";

std::optional<TableFamily> FamilyByName(std::string_view name) {
  for (const TableFamily family : {TableFamily::kInet, TableFamily::kIp, TableFamily::kArp,
                                   TableFamily::kNetdev, TableFamily::kBridge, TableFamily::kIp6}) {
    if (name == FamilyName(family)) return family;
  }
  return std::nullopt;
}

std::string_view Trim(std::string_view text) {
  while (!text.empty() && (text.front() == '\t' || text.front() == ' ')) text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

std::string_view TakeWord(std::string_view& text) {
  const size_t end = std::min(text.find(' '), text.size());
  const std::string_view word = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return word;
}

// The handle at the end of a line, which is cut off; 0 when there is none.
uint64_t TakeHandle(std::string_view& line) {
  const size_t at = line.rfind(kHandle);
  if (at == std::string_view::npos) return 0;
  const std::string_view digits = line.substr(at + kHandle.size());
  uint64_t handle = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), handle);
  if (error != std::errc() || end != digits.data() + digits.size()) return 0;
  line = line.substr(0, at);
  return handle;
}

bool SkipNumber(std::string_view text, size_t& at) {
  const size_t begin = at;
  while (at < text.size() && text[at] >= '0' && text[at] <= '9') ++at;
  return at > begin;
}

bool SkipText(std::string_view text, std::string_view expected, size_t& at) {
  if (text.substr(at, expected.size()) != expected) return false;
  at += expected.size();
  return true;
}

// "packets N bytes M" at `at`; where it ends.
std::optional<size_t> Figures(std::string_view text, size_t at) {
  if (SkipText(text, "packets ", at) && SkipNumber(text, at) && SkipText(text, " bytes ", at) &&
      SkipNumber(text, at)) {
    return at;
  }
  return std::nullopt;
}

// Strings in quotes (which have no escapes) are comments and prefixes, whatever they say.
std::vector<ListingLine::Range> FindCounters(std::string_view text) {
  constexpr std::string_view kCounter = "counter packets ";
  constexpr size_t kWord = std::string_view("counter ").size();
  std::vector<ListingLine::Range> out;
  bool quoted = false;
  for (size_t at = 0; at < text.size(); ++at) {
    if (text[at] == '"') quoted = !quoted;
    if (quoted || text.substr(at, kCounter.size()) != kCounter) continue;
    if (at > 0 && text[at - 1] != ' ' && text[at - 1] != '\t') continue;
    const std::optional<size_t> end = Figures(text, at + kWord);
    if (!end) continue;
    out.push_back({at + kWord, *end});
    at = *end - 1;
  }
  return out;
}

// Follows the blocks of the listing: table, and within it chain or object.
class Parser {
 public:
  ListingLine Take(std::string_view text) {
    ListingLine line;
    line.text = std::string(text);
    line.family = family_;
    line.table = table_;
    std::string_view content = text;
    const uint64_t handle = TakeHandle(content);
    const std::string_view trimmed = Trim(content);
    ++block_lines_;
    if (trimmed.starts_with('}')) {
      Close();
      // "} # handle 16": a rule that ends with a block of its own.
      if (depth_ == 2 && !chain_.empty() && handle != 0) {
        MakeRule(line, handle);
        line.rule_lines = block_lines_;
      }
    } else if (trimmed.ends_with('{') || (depth_ == 0 && trimmed.starts_with("table "))) {
      // The table of a running process: "table inet t { # handle 1 progname firewalld".
      Open(trimmed);
    } else if (depth_ == 2 && !chain_.empty() && handle != 0) {
      MakeRule(line, handle);
    } else if (depth_ == 2 && !counter_.empty()) {
      TakeCounter(line);
    }
    if (depth_ > 0 && line.table.empty()) {
      line.family = family_;
      line.table = table_;
    }
    return line;
  }

 private:
  void Open(std::string_view header) {
    if (++depth_ == 3) block_lines_ = 1;
    const std::string_view kind = TakeWord(header);
    if (depth_ == 1) {
      family_ = FamilyByName(TakeWord(header)).value_or(TableFamily::kInet);
      table_ = std::string(TakeWord(header));
    } else if (depth_ == 2) {
      chain_ = kind == "chain" ? std::string(TakeWord(header)) : std::string();
      counter_ = kind == "counter" ? std::string(TakeWord(header)) : std::string();
    }
  }
  void Close() {
    if (depth_ > 0) --depth_;
    if (depth_ < 2) {
      chain_.clear();
      counter_.clear();
    }
    if (depth_ == 0) table_.clear();
  }
  void MakeRule(ListingLine& line, uint64_t handle) const {
    line.kind = ListingLine::Kind::kRule;
    line.chain = chain_;
    line.handle = handle;
    line.counters = FindCounters(line.text);
  }
  void TakeCounter(ListingLine& line) const {
    const size_t at = line.text.find_first_not_of(" \t");
    const std::optional<size_t> end =
        at == std::string::npos ? std::nullopt : Figures(line.text, at);
    if (!end || *end != line.text.size()) return;
    line.kind = ListingLine::Kind::kCounter;
    line.name = counter_;
    line.counters = {{at, *end}};
  }

  int depth_ = 0;
  size_t block_lines_ = 0;  // since a block within a rule began
  TableFamily family_ = TableFamily::kInet;
  std::string table_;
  std::string chain_;
  std::string counter_;
};

}  // namespace

std::vector<ListingLine> ParseListing(std::string_view text) {
  std::vector<ListingLine> lines;
  Parser parser;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    lines.push_back(parser.Take(text.substr(0, end)));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

absl::StatusOr<std::vector<ListingLine>> ListRuleset() {
  const NftContext context = MakeNftContext();
  if (context == nullptr) return absl::ResourceExhaustedError("no memory for libnftables");
  nft_ctx_output_set_flags(context.get(), NFT_CTX_OUTPUT_HANDLE | NFT_CTX_OUTPUT_TERSE);
  if (nft_run_cmd_from_buffer(context.get(), "list ruleset") != 0) {
    return absl::UnavailableError("cannot list the nftables ruleset: " + NftError(context.get()));
  }
  return ParseListing(nft_ctx_get_output_buffer(context.get()));
}

std::string RuleText(const std::vector<ListingLine>& listing, TableFamily family,
                     std::string_view table, std::string_view chain, uint64_t handle) {
  for (size_t i = 0; i < listing.size(); ++i) {
    const ListingLine& line = listing[i];
    if (line.kind != ListingLine::Kind::kRule || line.handle != handle || line.family != family ||
        line.table != table || line.chain != chain || line.rule_lines > i + 1) {
      continue;
    }
    std::string out;
    for (size_t part = i + 1 - line.rule_lines; part <= i; ++part) {
      std::string_view text = listing[part].text;
      TakeHandle(text);
      if (!out.empty()) out += ' ';
      out += Trim(text);
    }
    return out;
  }
  return "";
}

}  // namespace sluice::control::nft
