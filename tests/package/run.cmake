# Installs the core into a folder of its own, then configures and builds a project against it, and runs its program.
#   cmake -DBUILD=<build folder> -DSOURCE=<the project> -DPROGRAM=<its program> [-DARGUMENTS=<list>] [-DPRINTS=<regex>]
#     -P run.cmake
set(work ${BUILD}/package_test/${PROGRAM})
file(REMOVE_RECURSE ${work})
execute_process(COMMAND ${CMAKE_COMMAND} --install ${BUILD} --component core --prefix ${work}/prefix
  OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${CMAKE_COMMAND} -S ${SOURCE} -B ${work}/build -DCMAKE_PREFIX_PATH=${work}/prefix
  OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${CMAKE_COMMAND} --build ${work}/build OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${work}/build/${PROGRAM} ${ARGUMENTS} OUTPUT_VARIABLE printed COMMAND_ERROR_IS_FATAL ANY)
message("${printed}")
if(NOT printed MATCHES "${PRINTS}")
  message(FATAL_ERROR "${PROGRAM} does not print ${PRINTS}")
endif()
