#include "app/live_trace.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/reason.h"
#include "control/packet_text/packet_text.h"
#include "telemetry/view_json.h"

namespace sluice::app {
namespace {

using dataplane::TraceOutcome;
using dataplane::TraceRecord;

// A look-on at a worker's ring costs next to nothing; somebody reads along.
constexpr std::chrono::milliseconds kPause(10);
constexpr size_t kMostAtOnce = 256;

std::string VerdictText(TraceOutcome outcome) {
  switch (outcome) {
    case TraceOutcome::kForwarded:
      return "forwarded";
    case TraceOutcome::kLocal:
      return "local";
    case TraceOutcome::kPunted:
      return "left to the kernel";
    case TraceOutcome::kDropped:
      return "dropped";
  }
  return "unknown";
}

std::string ReasonLabel(const TraceRecord& r) {
  if (r.outcome == TraceOutcome::kDropped && r.reason < kDropReasonCount) {
    return std::string(kDropReasons[r.reason].label);
  }
  if (r.outcome == TraceOutcome::kPunted && r.reason < kPuntReasonCount) {
    return std::string(kPuntReasons[r.reason].label);
  }
  return {};
}

// Without the hop that forwarding takes, so that only a translation shows.
std::string WithoutHops(std::string text) {
  for (const char* word : {" ip ttl ", " ip6 hoplimit "}) {
    const size_t at = text.find(word);
    if (at == std::string::npos) continue;
    size_t end = at + std::string_view(word).size();
    while (end < text.size() && text[end] >= '0' && text[end] <= '9') ++end;
    text.erase(at, end - at);
  }
  return text;
}

}  // namespace

LiveTrace::LiveTrace(const dataplane::PacketFilter& filter, size_t workers,
                     InterfaceNames interfaces, Nanos start, std::function<void()> ended)
    : interfaces_(std::move(interfaces)), start_(start), ended_(std::move(ended)) {
  for (size_t i = 0; i < workers; ++i) {
    sessions_.push_back(std::make_unique<dataplane::TraceSession>());
    sessions_.back()->filter = filter;
  }
}

LiveTrace::~LiveTrace() {
  if (!closed_ && ended_) ended_();
}

void LiveTrace::UseRules(RuleNames rules) {
  const std::lock_guard lock(mutex_);
  if (rules.generation != rules_[0].generation) rules_[1] = std::move(rules_[0]);
  rules_[0] = std::move(rules);
}

void LiveTrace::Close() { closed_ = true; }

bool LiveTrace::Next(Nanos patience, std::vector<telemetry::TraceView>& out) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::nanoseconds(patience.count());
  for (;;) {
    for (uint32_t worker = 0; worker < sessions_.size(); ++worker) {
      TraceRecord record;
      for (size_t n = 0; n < kMostAtOnce && sessions_[worker]->ring.TryPop(record); ++n) {
        out.push_back(ViewOf(record, worker));
      }
    }
    if (closed_) return false;
    if (!out.empty() || std::chrono::steady_clock::now() >= until) break;
    std::this_thread::sleep_for(kPause);
  }
  std::stable_sort(out.begin(), out.end(), [](const auto& a, const auto& b) {
    return a.time_seconds < b.time_seconds;
  });
  return true;
}

uint64_t LiveTrace::lost() const {
  uint64_t sum = 0;
  for (const auto& session : sessions_) sum += session->lost.Read();
  return sum;
}

telemetry::TraceView LiveTrace::ViewOf(const TraceRecord& r, uint32_t worker) {
  const auto name = [&](IfaceSlot slot) {
    return slot.value < kMaxInterfaces ? interfaces_[slot.value] : std::string();
  };
  const std::span<const uint8_t> arrived(r.arrived.data(), r.captured);
  telemetry::TraceView view;
  view.time_seconds = (r.time - start_).seconds();
  view.worker = worker;
  view.interface = name(r.in);
  view.packet = control::DescribePacket(arrived);
  view.length = r.length;
  view.verdict = VerdictText(r.outcome);
  view.reason = ReasonLabel(r);
  view.output = name(r.out);
  view.tier = r.offload                                ? "xdp"
              : r.outcome == TraceOutcome::kPunted ? "kernel"
                                                       : "worker";
  if (r.departed > 0) {
    const std::string left = control::DescribePacket({r.left.data(), r.departed});
    if (WithoutHops(left) != WithoutHops(view.packet)) view.translated = left;
  }
  for (size_t i = 0; i < r.rule_count; ++i) {
    view.rules.push_back(RuleName(r.generation, r.rules[i]));
  }
  view.bytes = telemetry::ToHex(arrived);
  return view;
}

std::string LiveTrace::RuleName(uint64_t generation, uint32_t rule) {
  const std::lock_guard lock(mutex_);
  const bool chain = (rule & dataplane::kTraceChain) != 0;
  const uint32_t index = rule & ~dataplane::kTraceChain;
  for (const RuleNames& rules : rules_) {
    if (rules.generation != generation) continue;
    const std::vector<std::string>& names = chain ? rules.chains : rules.names;
    if (index < names.size()) return names[index];
  }
  return absl::StrCat(chain ? "policy of chain " : "rule ", index, " of generation ", generation);
}

}  // namespace sluice::app
