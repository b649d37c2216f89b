"""The shipped studies for `--config-name`, and presets of your own for `attention=`."""

import sys

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from sah.cli.arguments.config_files import config_folders, shipped_study
from sah.execution.building import register_attentions
from sah.execution.hydra_settings import search_folders
from sah.paths import config_folder


class StudySearchPath(SearchPathPlugin):
    """Adds the folder of the studies when --config-name names one.

    Otherwise their presets are not options: `sparse_attention=glob(*)` means those of conf/.
    The presets of all folders of the command line become options of `attention=`.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the folder, after conf/ and the folders of the command line."""
        arguments = sys.argv[1:]
        study = shipped_study(arguments)
        if study is not None:
            search_path.append("sah-studies", f"file://{study}")
        folders = config_folders(arguments, default=config_folder())
        studies = [study] if study is not None else []
        register_attentions([*studies, *folders[1:], *search_folders(arguments)])
