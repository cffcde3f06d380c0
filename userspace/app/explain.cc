#include "app/explain.h"

#include <ostream>
#include <vector>

#include "app/client.h"
#include "app/pcap_file.h"
#include "app/show.h"
#include "control/packet_text/packet_text.h"
#include "telemetry/view_json.h"
#include "telemetry/view_table.h"

namespace sluice::app {
namespace {

absl::StatusOr<std::vector<uint8_t>> FrameOf(const ExplainOptions& options) {
  const int given = (options.words.empty() ? 0 : 1) + (options.hex ? 1 : 0) + (options.pcap ? 1 : 0);
  if (given != 1) {
    return absl::InvalidArgumentError("give one of a description, --hex and --pcap");
  }
  if (options.pcap) return ReadPcapPacket(*options.pcap, options.packet);
  if (!options.hex) return control::ParsePacketText(options.words);
  auto frame = telemetry::FromHex(*options.hex);
  if (!frame || frame->empty()) {
    return absl::InvalidArgumentError("--hex: not pairs of hexadecimal digits");
  }
  return *std::move(frame);
}

}  // namespace

int Explain(const ExplainOptions& options, std::ostream& out, std::ostream& err) {
  const auto frame = FrameOf(options);
  if (!frame.ok()) return Fail(err, frame.status());
  const auto json = ControlPost(options.control_path, "/v1/explain",
                                telemetry::ToJson(telemetry::ExplainRequest{
                                    options.interface, *frame}));
  if (!json.ok()) return Fail(err, json.status());
  if (options.json) {
    out << telemetry::PrettyJson(*json);
    return 0;
  }
  const auto view = telemetry::FromJson<telemetry::ExplainView>(*json);
  if (!view.ok()) return Fail(err, absl::InternalError(view.status().message()));
  out << telemetry::ToTable(*view);
  return 0;
}

}  // namespace sluice::app
