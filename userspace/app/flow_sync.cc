#include "app/flow_sync.h"

#include <string>

#include "app/clock.h"
#include "app/log.h"
#include "control/conntrack_sync/kernel_flows.h"
#include "tables/flow_owner.h"

namespace sluice::app {

using tables::Flow;
using tables::FlowDirection;
using tables::FlowIndex;
using tables::FlowTable;

namespace {

constexpr uint32_t kPortion = 1024;  // places of a table that a worker looks through between bursts

uint64_t Fingerprint(const tables::FlowTuple& t) {
  return absl::HashOf(t.source.hi, t.source.lo, t.destination.hi, t.destination.lo, t.source_port,
                      t.destination_port, t.protocol);
}

bool Insert(FlowTable& table, const Flow& flow, Nanos now) {
  if (table.Find(flow.tuple(FlowDirection::kOriginal)).found()) return false;
  const FlowIndex index = table.Allocate(now, [](FlowIndex) {});
  if (index == tables::kNoFlow) return false;
  table.at(index) = flow;
  table.at(index).status = (flow.status & ~uint32_t{tables::kFlowConfirmed}) |
                           tables::kFlowImported | tables::kFlowSourceNatDone |
                           tables::kFlowDestinationNatDone;
  if (table.Insert(index)) return true;
  table.Free(index);
  return false;
}

}  // namespace

void VisitFlows(WorkerThread& thread, const std::function<void(const Flow&)>& visit) {
  std::vector<Flow> portion;
  portion.reserve(kPortion);
  FlowIndex from = 0;
  while (from != tables::kNoFlow) {
    portion.clear();
    thread.Call([&](WorkerThread::Worker& worker) {
      from = worker.pipeline().firewall().flows().Visit(
          from, kPortion, [&](FlowIndex, const Flow& flow) {
            if (!flow.Has(tables::kFlowAlias)) portion.push_back(flow);
          });
    });
    for (const Flow& flow : portion) visit(flow);
  }
}

absl::StatusOr<ImportResult> ImportFlows(
    const WorkerThreads& workers, const std::function<bool(const IpAddress&)>& is_own) {
  ImportResult result;
  const Nanos now = MonotonicNow();
  std::vector<std::vector<Flow>> shares(workers.size());
  const auto read = control::ReadKernelFlows(now, [&](const Flow& flow) {
    if (!control::IsForwarded(flow, is_own)) return;
    const WorkerId owner =
        tables::OwnerOf(flow.tuple(FlowDirection::kOriginal), workers.size());
    shares[owner.value].push_back(flow);
  });
  if (!read.ok()) return read.status();
  result.in_kernel = *read;
  for (size_t w = 0; w < workers.size(); ++w) {
    const std::vector<Flow>& share = shares[w];
    for (size_t at = 0; at < share.size(); at += kPortion) {
      workers[w]->Call([&](WorkerThread::Worker& worker) {
        FlowTable& table = worker.pipeline().firewall().flows();
        const size_t end = std::min(share.size(), at + kPortion);
        for (size_t i = at; i < end; ++i) ++(Insert(table, share[i], now) ? result.taken
                                                                          : result.refused);
      });
    }
  }
  return result;
}

void FlowExporter::Export(const WorkerThreads& workers) {
  auto writer = control::KernelFlowWriter::Open();
  if (!writer.ok()) {
    LogWarning("connections cannot be given back to the kernel: {}",
               std::string(writer.status().message()));
    return;
  }
  absl::Status status;
  const Nanos now = MonotonicNow();
  for (const auto& thread : workers) {
    VisitFlows(*thread, [&](const Flow& flow) {
      if (!status.ok()) return;
      if (!written_.insert(Fingerprint(flow.tuple(FlowDirection::kOriginal))).second) return;
      status = writer->Add(flow, now);
    });
  }
  const auto result = writer->Finish();
  if (status.ok()) status = result.status();
  if (!status.ok()) {
    LogWarning("not all connections were given back to the kernel: {}",
               std::string(status.message()));
    return;
  }
  if (result->written == 0 && result->failed == 0) return;
  LogInfo("connections given back to the kernel: {} ({} clashed, {} failed{})", result->written,
          result->clashed, result->failed,
          result->failed > 0 ? ": " + std::string(result->first_failure.message()) : "");
}

}  // namespace sluice::app
