#include "app/service_control.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "app/clock.h"
#include "app/log.h"
#include "app/random_bytes.h"
#include "app/service_program.h"

namespace sluice::app {

namespace {

transport::TransportConfig StackConfig(const control::LimitsConfig& limits, uint32_t frames) {
  transport::TransportConfig config;
  transport::TcpLimits& tcp = config.tcp.limits;
  tcp.connections = limits.connections;
  tcp.listeners = static_cast<uint32_t>(tables::kMaxServices * tables::kMaxListens);
  tcp.time_wait = limits.connections / 2;
  tcp.half_open = std::max(limits.connections / 4, 1u);
  tcp.orphans = limits.connections / 4;
  tcp.send_frames = frames / 4;
  tcp.receive_frames = frames / 4;
  config.tcp.first_port = config.udp.first_port = limits.socket_ports.first;
  config.tcp.last_port = config.udp.last_port = limits.socket_ports.last;
  // A session may have a socket on either side.
  config.udp.sockets = 2 * limits.udp_sessions + tcp.listeners;
  config.udp.receive_frames = frames / 8;
  config.udp.memberships = static_cast<uint32_t>(tables::kMaxGroupListens);
  config.key = RandomValue<transport::HashKey>();
  config.start = MonotonicNow();
  return config;
}

services::ServiceLimits LimitsOf(const control::LimitsConfig& limits, uint32_t workers) {
  services::ServiceLimits result;
  result.workers = workers;
  result.relays = std::max(limits.connections / 2, 1u);
  result.udp_sessions = limits.udp_sessions;
  result.endpoint_connections = std::max(limits.connections / 4, 16u);
  return result;
}

}  // namespace

ServiceControl::ServiceControl(const control::LimitsConfig& limits, Workers workers,
                               uint32_t frames)
    : limits_(limits),
      workers_(workers),
      frames_(frames),
      fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  if (fd_ < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
}

ServiceControl::~ServiceControl() { close(fd_); }

void ServiceControl::Install() {
  const auto count = static_cast<uint32_t>(workers_.size());
  for (const auto& thread : workers_) {
    auto stack = std::make_unique<transport::Transport>(
        StackConfig(limits_, frames_), thread->pool(), thread->worker().pipeline().sockets());
    auto program = std::make_unique<Program>(*stack, LimitsOf(limits_, count), fd_);
    sets_.push_back({thread.get(), stack.get(), program.get()});
    thread->Call([&](WorkerThread::Worker& worker) {
      worker.pipeline().sockets().Install(std::move(stack), std::move(program));
    });
  }
}

// The kernel's own connections must have none of the ports that belong to sockets here: their answers
// would come to those.
void ServiceControl::ReservePorts(const tables::ServicesConfig& config) {
  std::vector<control::PortRange> ports{limits_.socket_ports};
  for (const tables::ServiceConfig& service : config.services) {
    for (const tables::ServiceAddress& a : service.listen) ports.push_back({a.port, a.port});
  }
  if (const absl::Status reserved = reserved_.Reserve(std::move(ports)); !reserved.ok()) {
    LogWarning("limits.socket_ports and the ports of services cannot be reserved, so the kernel's "
               "own connections may use them too: {}", std::string(reserved.message()));
  }
}

void ServiceControl::Apply(const tables::ServicesConfig& config) {
  if (config.services.empty() && !active()) return;
  ReservePorts(config);
  if (!active()) Install();
  tables::ServicesConfig assigned = config;
  if (!slots_.Assign(assigned)) {
    LogWarning("services: more backends than are counted one by one; the last ones are not");
  }
  const auto shared = std::make_shared<const tables::ServicesConfig>(std::move(assigned));
  for (const Of& of : sets_) {
    of.thread->Call([&](WorkerThread::Worker& worker) {
      of.program->set.Apply(shared, worker.now());
    });
  }
  WarnOfListens();
}

// An address that cannot be listened on is not tried again: someone has to know.
void ServiceControl::WarnOfListens() const {
  for (const telemetry::ServiceView& service : Services()) {
    if (service.state == "partly") {
      LogWarning("service {}: not all of its addresses can be listened on", service.name);
    }
  }
}

void ServiceControl::AnswerPages(const std::function<std::string()>& render) {
  eventfd_t count;
  if (eventfd_read(fd_, &count) != 0) return;
  const Nanos now = MonotonicNow();
  for (const Of& of : sets_) {
    uint64_t token;
    while (of.program->pages.TryPop(token)) {
      const PageCache::Page page = pages_.Get(render, now);
      of.thread->Call([&](WorkerThread::Worker& worker) {
        of.program->set.OnPage(token, page, worker.now());
      });
    }
  }
  pages_.Forget();
}

bool ServiceControl::Drained() {
  bool all = true;
  for (const Of& of : sets_) {
    of.thread->Call([&](WorkerThread::Worker&) { all = all && of.program->set.Drained(); });
  }
  return all;
}

}  // namespace sluice::app
