#pragma once

#include <string>
#include <string_view>

namespace dhp {

/// How far measured task times differ from estimates, as standard deviations of logarithms (0.02: about 2 %). The time
/// of a task is its estimate times three kinds of factors, log-normal of mean 1:
///
///     (sum over its sequences of share * x_sequence) * y_task * (the largest z over its ranks)
///
/// where a sequence's share is its part of the task's work, by time alone on one rank. What all tasks have in common
/// changes no plan and is not counted here.
struct ErrorSizes {
  double sequence = 0.02;  ///< of each sequence, wherever it runs
  double task = 0.02;      ///< of each task, whatever it holds
  double rank = 0.01;      ///< of each rank of each task: jitter

  bool operator==(const ErrorSizes&) const = default;
  /// Whether any is above 0.
  bool any() const { return sequence > 0.0 || task > 0.0 || rank > 0.0; }
};

/// Largest size accepted.
inline constexpr double kMostErrorSize = 1.0;

/// Reads "SEQ[,TASK[,RANK]]"; what is left out is 0. Throws InputError (from `source`) for another text and for numbers
/// outside 0 to kMostErrorSize.
ErrorSizes parse_error_sizes(std::string_view text, const std::string& source);
/// The shortest text that parse_error_sizes() reads as the same sizes: "0.02,0.02,0.01", "0.06", "0".
std::string to_text(const ErrorSizes& sizes);

/// Throws InputError naming `source` and `location` unless each number is from 0 to kMostErrorSize.
void validate(const ErrorSizes& sizes, const std::string& source, const std::string& location = "");

}  // namespace dhp
