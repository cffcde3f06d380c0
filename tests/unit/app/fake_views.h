// A view source with one of everything, for the tests of the control API and the command line.
#ifndef SLUICE_TESTS_UNIT_APP_FAKE_VIEWS_H_
#define SLUICE_TESTS_UNIT_APP_FAKE_VIEWS_H_

#include <stdlib.h>

#include <atomic>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "telemetry/views.h"

namespace sluice::app {

class FakeViews : public telemetry::ViewSource {
 public:
  std::atomic<bool> ready{true};
  std::atomic<int> ready_after{0};  // so many questions are answered with no
  telemetry::RouteFilter last_filter;

  telemetry::ReadyView Ready() override {
    if (ready_after > 0) {
      --ready_after;
      return {false, "starting"};
    }
    return {ready, ready ? "" : "no interface is up"};
  }
  telemetry::StatusView Status() override {
    telemetry::StatusView view;
    view.version = "1.2.3";
    view.packets.received = 5;
    view.packets.forwarded = 5;
    return view;
  }
  std::vector<telemetry::InterfaceView> Interfaces() override {
    telemetry::InterfaceView view;
    view.name = "lan0";
    return {view};
  }
  telemetry::RoutesView Routes(const telemetry::RouteFilter& filter) override {
    last_filter = filter;
    telemetry::RoutesView view;
    view.total4 = 1;
    view.routes = {{"10.0.0.0/8", "unicast", {}, 0, true, ""}};
    return view;
  }
  std::vector<telemetry::NeighborView> Neighbors() override {
    return {{"10.0.0.2", "lan0", "", "stale", 0, 1, 0}};
  }
  std::vector<telemetry::WorkerView> Workers() override { return {{}}; }
  std::vector<telemetry::DropView> Drops() override {
    return {{"lan0", "no_route", "no route", 3}, {"lan0", "checksum", "wrong", 0}};
  }

  uint64_t last_socket_limit = 0;
  telemetry::SocketsView Sockets(uint64_t limit) override {
    last_socket_limit = limit;
    telemetry::SocketsView view;
    view.total = 1;
    view.sockets = {{.protocol = "tcp",
                     .state = "ESTABLISHED",
                     .local = "10.0.0.1:80",
                     .remote = "10.0.0.2:40000",
                     .service = "web"}};
    return view;
  }
  std::vector<telemetry::ServiceView> Services() override {
    telemetry::ServiceView web{{.name = "web", .kind = "tcp_proxy"}};
    web.state = "listening";
    web.listen = {"10.0.0.1:80"};
    web.backends = {{.address = "10.1.0.2:8080", .health = "up"}};
    return {web};
  }

  telemetry::FlowQuery last_flow_query;
  telemetry::NatQuery last_nat_query;
  telemetry::ExplainRequest last_explain;
  telemetry::TraceRequest last_trace;
  std::atomic<int> traces{0};       // that are running
  std::atomic<bool> endless{false};  // a trace: packet after packet
  std::atomic<uint64_t> lost{0};

  absl::StatusOr<telemetry::RulesView> Rules() override {
    telemetry::RulesView view;
    view.firewall.rules = 1;
    view.firewall.in_workers = 1;
    view.lines = {{.text = "table inet filter { # handle 1"},
                  {.text = "\t\tcounter packets 5 bytes 300 drop # handle 7",
                   .where = "worker",
                   .family = "inet",
                   .table = "filter",
                   .chain = "forward",
                   .handle = 7,
                   .packets = 5,
                   .bytes = 300}};
    return view;
  }
  absl::StatusOr<telemetry::FlowsView> Flows(const telemetry::FlowQuery& query) override {
    last_flow_query = query;
    if (query.filter == "bad") return absl::InvalidArgumentError("character 1: unknown word");
    telemetry::FlowsView view{.total = 1, .matched = 1, .limit = 1000};
    view.flows.push_back({.protocol = "tcp", .state = "ESTABLISHED", .conntrack = "tcp      6 1 x"});
    return view;
  }
  absl::StatusOr<telemetry::NatView> Nat(const telemetry::NatQuery& query) override {
    last_nat_query = query;
    return telemetry::NatView{.mappings = 3, .exhausted = 4};
  }
  absl::StatusOr<telemetry::ExplainView> Explain(
      const telemetry::ExplainRequest& request) override {
    last_explain = request;
    if (request.interface != "lan0") {
      return absl::NotFoundError("no interface " + request.interface + " is served");
    }
    return telemetry::ExplainView{.packet = "ip saddr 10.0.0.5",
                                  .interface = "lan0",
                                  .stages = {{"forward", "accept", "inet filter forward handle 7"}},
                                  .verdict = "forwarded to wan0"};
  }
  absl::StatusOr<std::unique_ptr<telemetry::TraceStream>> Trace(
      const telemetry::TraceRequest& request) override {
    last_trace = request;
    if (traces > 0) return absl::ResourceExhaustedError("another trace is running");
    return std::make_unique<FakeTrace>(*this);
  }

 private:
  class FakeTrace : public telemetry::TraceStream {
   public:
    explicit FakeTrace(FakeViews& views) : views_(views) { ++views_.traces; }
    ~FakeTrace() override { --views_.traces; }
    bool Next(Nanos, std::vector<telemetry::TraceView>& out) override {
      out.push_back({.time_seconds = 1.5,
                     .interface = "lan0",
                     .packet = "ip saddr 10.0.0." + std::to_string(++sent_),
                     .length = 60,
                     .verdict = "forwarded",
                     .output = "wan0"});
      return views_.endless || sent_ < 3;
    }
    uint64_t lost() const override { return views_.lost; }

   private:
    FakeViews& views_;
    int sent_ = 0;
  };
};

// A directory of the test's own, gone afterwards.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    char name[] = "/tmp/sluice-test-XXXXXX";
    path_ = mkdtemp(name);
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace sluice::app

#endif  // SLUICE_TESTS_UNIT_APP_FAKE_VIEWS_H_
