#pragma once
#include "io/result_store.h"
#include "moerun/job.h"
#include "report/report.h"

namespace moerun {

/// Writes the reports that the job asks for. One that cannot be written is kept in the run directory of an
/// output that has its name, and a line says so: the answers are complete, so it changes no exit code, and
/// the same command writes it later. `directory`: of the run, which is removed when nothing is owed. Thread
/// contract: rank 0's main thread, after the coordinator's end.
void write_reports(const JobReport& report, RunDirectory& directory);

/// For a job that is finished already: writes the reports that its last run could not write, or, where that
/// run died before it could keep them, what the output says of itself. A report that is there and was not
/// owed stays as it is.
void write_owed_reports(const Job& job, const OpenedStore& opened);

}  // namespace moerun
