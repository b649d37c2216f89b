"""The shipped studies for `--config-name`, in a checkout and in an installed package."""

import sys

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from sah.cli.arguments.config_files import shipped_study


class StudySearchPath(SearchPathPlugin):
    """Adds the folder of the studies when --config-name names one.

    Otherwise their presets are not options: `sparse_attention=glob(*)` means those of conf/.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the folder, after conf/ and the folders of the command line."""
        folder = shipped_study(sys.argv[1:])
        if folder is not None:
            search_path.append("sah-studies", f"file://{folder}")
