// The firewall's part of the control API.
#include <memory>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "app/control_reply.h"
#include "app/control_server.h"
#include "telemetry/view_json.h"

namespace sluice::app {
namespace {

using telemetry::HttpReply;
using telemetry::HttpStream;
using telemetry::ToJson;
using telemetry::TraceStream;

constexpr Nanos kTracePatience = Millis(200);

template <class View>
absl::StatusOr<std::string> JsonOf(const absl::StatusOr<View>& view) {
  if (!view.ok()) return view.status();
  return ToJson(*view);
}

absl::StatusOr<telemetry::FlowQuery> ReadFlowQuery(const ControlServer::Query& query) {
  telemetry::FlowQuery out;
  for (const auto& [key, value] : query) {
    if (key == "filter") {
      out.filter = value;
    } else if (key == "sort") {
      const auto sort = telemetry::ParseFlowSort(value);
      if (!sort) {
        return absl::InvalidArgumentError(
            absl::StrCat("sort must be bytes, packets or timeout, not \"", value, "\""));
      }
      out.sort = *sort;
    } else if (key == "limit") {
      const absl::Status read = ReadLimit(value, telemetry::kMaxFlowLimit, &out.limit);
      if (!read.ok()) return read;
    } else {
      return UnknownParameter(key);
    }
  }
  return out;
}

absl::StatusOr<telemetry::NatQuery> ReadNatQuery(const ControlServer::Query& query) {
  telemetry::NatQuery out;
  for (const auto& [key, value] : query) {
    if (key != "limit") return UnknownParameter(key);
    const absl::Status read = ReadLimit(value, telemetry::kMaxFlowLimit, &out.limit);
    if (!read.ok()) return read;
  }
  return out;
}

// What is sent of a trace: its packets, how many were lost so far whenever that has changed, and an
// empty line when there is nothing, by which a client that has gone is noticed.
class TraceLines {
 public:
  explicit TraceLines(std::unique_ptr<TraceStream> stream) : stream_(std::move(stream)) {}

  bool Next(std::string& out) {
    packets_.clear();
    const bool more = stream_->Next(kTracePatience, packets_);
    for (const telemetry::TraceView& packet : packets_) out += ToJson(packet) + '\n';
    if (const uint64_t lost = stream_->lost(); lost != lost_) {
      lost_ = lost;
      out += telemetry::LostJson(lost) + '\n';
    }
    if (out.empty()) out += '\n';
    return more;
  }
  void End() { stream_.reset(); }

 private:
  std::unique_ptr<TraceStream> stream_;
  std::vector<telemetry::TraceView> packets_;
  uint64_t lost_ = 0;
};

}  // namespace

void ControlServer::HandleFirewallViews(telemetry::ViewSource& source) {
  Handle("/v1/rules", [&](const Query&) { return JsonOf(source.Rules()); });
  Handle("/v1/flows", [&](const Query& query) -> absl::StatusOr<std::string> {
    const auto read = ReadFlowQuery(query);
    if (!read.ok()) return read.status();
    return JsonOf(source.Flows(*read));
  });
  Handle("/v1/nat", [&](const Query& query) -> absl::StatusOr<std::string> {
    const auto read = ReadNatQuery(query);
    if (!read.ok()) return read.status();
    return JsonOf(source.Nat(*read));
  });
  HandlePost("/v1/explain", [&](const std::string& body) -> absl::StatusOr<std::string> {
    const auto request = telemetry::ExplainRequestFromJson(body);
    if (!request.ok()) return request.status();
    return JsonOf(source.Explain(*request));
  });
  HandleTrace(source);
}

void ControlServer::HandleTrace(telemetry::ViewSource& source) {
  server_.HandleStream(
      "/v1/trace", [this, &source](const std::string& body) -> std::variant<HttpReply, HttpStream> {
        const auto request = telemetry::TraceRequestFromJson(body);
        if (!request.ok()) return JsonReply(request.status());
        absl::StatusOr<std::unique_ptr<TraceStream>> stream =
            absl::UnavailableError("shutting down");
        if (!executor_([&] { stream = source.Trace(*request); })) {
          stream = absl::UnavailableError("shutting down");
        }
        if (!stream.ok()) return JsonReply(stream.status());
        auto lines = std::make_shared<TraceLines>(*std::move(stream));
        return HttpStream{"application/x-ndjson",
                          [lines](std::string& out) { return lines->Next(out); },
                          [this, lines] {
                            // When nobody serves the executor any more, Sluice ends, and has taken
                            // the trace from its workers already.
                            if (!executor_([&] { lines->End(); })) lines->End();
                          }};
      });
}

}  // namespace sluice::app
