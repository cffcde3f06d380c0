// Lines up columns: a heading, rows, numbers to the right, two spaces between.
//
// Thread: any. Lengths are counted in characters of UTF-8.
#ifndef SLUICE_TELEMETRY_TEXT_TABLE_H_
#define SLUICE_TELEMETRY_TEXT_TABLE_H_

#include <cstdint>
#include <string>
#include <vector>

namespace sluice::telemetry {

enum class Align : uint8_t { kLeft, kRight };

struct Column {
  std::string heading;
  Align align = Align::kLeft;
};

class TextTable {
 public:
  explicit TextTable(std::vector<Column> columns) : columns_(std::move(columns)) {}
  void AddRow(std::vector<std::string> cells);  // as many as columns
  std::string Render() const;

 private:
  const std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

std::string Grouped(uint64_t n);  // 1234567 -> 1,234,567
std::string Grouped(int64_t n);
std::string HumanBytes(uint64_t bytes);    // 1536 -> 1.5 KiB
std::string HumanSeconds(double seconds);  // 93784 -> 1d 2h 3m
std::string OrDash(const std::string& text);
std::string YesNo(bool value);

}  // namespace sluice::telemetry

#endif  // SLUICE_TELEMETRY_TEXT_TABLE_H_
